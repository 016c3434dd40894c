/* A bare vsock echo: what a round trip costs before anything is done for it. Usage: vsock-echo PORT */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

int main(int argc, char **argv)
{
    struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0), stream;
    char bytes[4096];
    ssize_t length;

    if (argc != 2)
        return 2;
    address.svm_port = atoi(argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        return 1;
    while ((stream = accept(listener, NULL, NULL)) >= 0) {
        while ((length = read(stream, bytes, sizeof bytes)) > 0 && write(stream, bytes, length) == length)
            ;
        close(stream);
    }
    return 1;
}
