//! The client in Python, made of the document that the worker serves, against the worker.

use super::*;

#[test]
fn a_client_made_of_the_document_leads_a_life() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let worker = Worker::start(FAST);
    for sandbox in ["sb-1", "sb-2", "sb-3"] {
        worker.add(sandbox, "");
    }
    let mut python = Command::new("python3");
    python.arg(root.join("tests/python/worker.py")).arg(root.join("src/host/worker/api"));
    let Ok(output) = python.arg(worker.path("api.sock")).output() else {
        let why = "python3 is missing: apt-get install python3";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        crate::under::skip(why);
        return;
    };
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}\n{}", worker.log());
    assert!(worker.rows("sb-1").len() >= 2, "the life is in the books");
}
