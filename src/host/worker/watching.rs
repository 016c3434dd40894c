//! The thread that watches the drop-in directory (inotify) and reads what changes in it: file work blocks, and the
//! worker's event loop must not.

use super::descriptors::{Change, Descriptors, is_descriptor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// News that wait to be taken; a full queue slows this thread, not the loop.
const NEWS_MAX: usize = 16;
/// How often a directory that is not there is looked for.
const RETRY: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// What one look at the directory told.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changes: Vec<Change>,
    /// What is wrong now: a file (or the directory) and why. All of it, each time.
    pub(super) faults: Vec<(String, String)>,
}

/// The loop's end of the thread.
pub(super) struct Watching {
    news: mpsc::Receiver<News>,
    waker: UnixStream,
}

impl Watching {
    /// Starts the thread. The first news hold all that is there.
    ///
    /// # Errors
    /// The directory cannot be read or watched, or the system gives no thread.
    pub(super) fn start(directory: PathBuf) -> io::Result<Self> {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let watch = Watch::open(&directory)?;
        let mut thread =
            Thread { descriptors: Descriptors::new(directory), watch: Some(watch), woken, sender };
        let first = thread.descriptors.read_all()?;
        std::thread::Builder::new().name("descriptors".to_owned()).spawn(move || thread.run(first))?;
        Ok(Self { news, waker })
    }

    /// The next news; `None` once the thread is gone.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Has everything read anew.
    pub(super) fn reread(&mut self) {
        // A full pipe wakes it as well.
        let _ = self.waker.write(&[1]);
    }
}

struct Thread {
    descriptors: Descriptors,
    /// `None` while the directory is gone.
    watch: Option<Watch>,
    woken: UnixStream,
    sender: mpsc::Sender<News>,
}

impl Thread {
    /// Until nobody listens any more.
    fn run(mut self, first: Vec<Change>) {
        let mut changes = first;
        let mut lost: Option<io::Error> = None;
        loop {
            let file = self.descriptors.faults().map(|(name, fault)| (name.to_owned(), fault.to_string()));
            let mut faults: Vec<_> = file.collect();
            let directory = self.descriptors.directory().display().to_string();
            faults.extend(lost.take().map(|error| (directory, error.to_string())));
            if self.sender.blocking_send(News { changes, faults }).is_err() {
                return;
            }
            let wakened = self.sleep();
            let Ok(wakened) = wakened else { return };
            let read = match wakened {
                Wakened::Closed => return,
                Wakened::Files(names) => Ok(self.descriptors.read(names)),
                Wakened::All => self.read_all(),
            };
            changes = read.unwrap_or_else(|error| {
                self.watch = None;
                lost = Some(error);
                Vec::new()
            });
        }
    }

    /// Watches first, so that nothing is missed between the two.
    fn read_all(&mut self) -> io::Result<Vec<Change>> {
        if self.watch.is_none() {
            self.watch = Some(Watch::open(self.descriptors.directory())?);
        }
        self.descriptors.read_all()
    }

    fn sleep(&mut self) -> io::Result<Wakened> {
        loop {
            let mut ready = vec![PollFd::new(&self.woken, PollFlags::IN)];
            ready.extend(self.watch.as_ref().map(|watch| PollFd::new(&watch.inotify, PollFlags::IN)));
            let limit = if self.watch.is_some() { None } else { Some(&RETRY) };
            match poll(&mut ready, limit) {
                Ok(0) => return Ok(Wakened::All),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            drop(ready);
            match self.woken.read(&mut [0; 64]) {
                Ok(0) => return Ok(Wakened::Closed),
                Ok(_) => return Ok(Wakened::All),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(watch) = &mut self.watch {
                match watch.take()? {
                    Seen::Files(names) if names.is_empty() => {}
                    Seen::Files(names) => return Ok(Wakened::Files(names)),
                    Seen::Missed => return Ok(Wakened::All),
                    Seen::DirectoryGone => {
                        self.watch = None;
                        return Ok(Wakened::All);
                    }
                }
            }
        }
    }
}

/// Why the thread woke.
enum Wakened {
    Files(BTreeSet<String>),
    All,
    /// The loop is gone.
    Closed,
}

struct Watch {
    inotify: OwnedFd,
}

/// What the kernel told.
enum Seen {
    Files(BTreeSet<String>),
    /// More than its queue holds.
    Missed,
    DirectoryGone,
}

impl Watch {
    /// A file is read once it is closed or renamed to its name, not while it is written.
    fn open(directory: &std::path::Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let files = WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::DELETE;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, directory, files | itself)?;
        Ok(Self { inotify })
    }

    fn take(&mut self) -> io::Result<Seen> {
        let mut names = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut events = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(Seen::Files(names)),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let gone =
                ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            if event.events().intersects(gone) {
                return Ok(Seen::DirectoryGone);
            }
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                return Ok(Seen::Missed);
            }
            let name = event.file_name().and_then(|name| name.to_str().ok());
            names.extend(name.filter(|name| is_descriptor(name)).map(str::to_owned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    async fn next(watching: &mut Watching) -> News {
        tokio::time::timeout(Duration::from_secs(60), watching.next()).await.expect("no news").unwrap()
    }

    #[tokio::test]
    async fn what_is_renamed_into_place_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut watching = Watching::start(folder.path().to_owned()).unwrap();
        assert!(next(&mut watching).await.changes.is_empty());

        let text = "sandbox = 'a'\norg = 'o'\nbase_memory_mib = 1\n";
        fs::write(folder.path().join("a.new"), text).unwrap();
        fs::rename(folder.path().join("a.new"), folder.path().join("a.toml")).unwrap();
        let news = next(&mut watching).await;
        assert!(matches!(news.changes.as_slice(), [Change::Described(found)] if found.sandbox == "a"));

        fs::write(folder.path().join("b.toml"), "half").unwrap();
        let news = next(&mut watching).await;
        assert!(news.changes.is_empty() && news.faults.len() == 1, "{news:?}");

        fs::remove_file(folder.path().join("a.toml")).unwrap();
        assert_eq!(next(&mut watching).await.changes, [Change::Gone("a".to_owned())]);
        watching.reread();
        assert_eq!(next(&mut watching).await.faults.len(), 1);
    }

    #[tokio::test]
    async fn a_directory_that_goes_and_comes_back_loses_nobody() {
        let parent = tempfile::tempdir().unwrap();
        let (here, away) = (parent.path().join("here"), parent.path().join("away"));
        fs::create_dir(&here).unwrap();
        fs::write(here.join("a.toml"), "sandbox = 'a'\norg = 'o'\nbase_memory_mib = 1\n").unwrap();
        let mut watching = Watching::start(here.clone()).unwrap();
        assert_eq!(next(&mut watching).await.changes.len(), 1);

        fs::rename(&here, &away).unwrap();
        let news = next(&mut watching).await;
        assert!(news.changes.is_empty() && news.faults.len() == 1, "{news:?}");

        fs::rename(&away, &here).unwrap();
        let mut news = next(&mut watching).await;
        while !news.faults.is_empty() {
            news = next(&mut watching).await;
        }
        assert!(news.changes.is_empty(), "{news:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Watching::start(folder.path().join("none")).is_err());
    }
}
