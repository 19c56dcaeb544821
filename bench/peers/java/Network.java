import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

// One virtual thread a connection, on blocking channels with buffers outside of the heap, which spare a copy.
final class Network {
    static final int MESSAGE_BYTES = 64;

    static ServerSocketChannel listen() throws IOException {
        final ServerSocketChannel listener = ServerSocketChannel.open();
        final int port = Bench.number("--port", 0);
        return listener.bind(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port), 4096);
    }

    static void writeAll(SocketChannel to, ByteBuffer bytes) throws IOException {
        while (bytes.hasRemaining()) to.write(bytes);
    }

    interface Server {
        void talk(SocketChannel connection) throws IOException;
    }

    static void serve(ServerSocketChannel listener, Server server) throws IOException {
        while (true) {
            final SocketChannel accepted = listener.accept();
            accepted.setOption(StandardSocketOptions.TCP_NODELAY, true);
            Thread.startVirtualThread(() -> {
                try (SocketChannel connection = accepted) {
                    server.talk(connection);
                } catch (IOException gone) {
                    // A client that resets the connection has ended it.
                }
            });
        }
    }

    static void serveEcho(ServerSocketChannel listener) throws IOException {
        serve(listener, connection -> {
            final ByteBuffer buffer = ByteBuffer.allocateDirect(4096);
            while (connection.read(buffer.clear()) > 0) writeAll(connection, buffer.flip());
        });
    }

    static void rounds(SocketChannel[] clients, int each) throws Exception {
        final Thread[] crowd = new Thread[clients.length];
        for (int i = 0; i < clients.length; i++) {
            final SocketChannel client = clients[i];
            crowd[i] = Bench.start(() -> {
                final ByteBuffer message = ByteBuffer.allocateDirect(MESSAGE_BYTES);
                for (int k = 0; k < each; k++) {
                    writeAll(client, message.clear());
                    message.clear();
                    while (message.hasRemaining()) {
                        if (client.read(message) < 0) throw new IOException("the server is gone");
                    }
                }
            });
        }
        Threads.joinAll(crowd);
    }

    // Both ends in one process, as in bench/echo.cpp; with --serve the server's half alone.
    static void echo() throws Exception {
        final ServerSocketChannel listener = listen();
        if (Bench.has("--serve")) serveEcho(listener);
        Bench.start(() -> serveEcho(listener));
        final SocketChannel[] clients = new SocketChannel[Bench.number("--connections", 1)];
        for (int i = 0; i < clients.length; i++) {
            clients[i] = SocketChannel.open(listener.getLocalAddress());
            clients[i].setOption(StandardSocketOptions.TCP_NODELAY, true);
        }
        final int each = Bench.number("--count", 1000000) / clients.length;
        Bench.warmUp(() -> rounds(clients, each / 10 + 1));
        Bench.report("round_trip", Bench.perOperation((long) each * clients.length, () -> rounds(clients, each)), "ns");
        System.exit(0);
    }

    static final String REPLY =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
    static final int BATCH = 16;

    // Counts ends of requests; remembers one that was cut by the end of a read.
    static final class Requests {
        private int matched = 0;

        int count(ByteBuffer bytes) {
            int requests = 0;
            while (bytes.hasRemaining()) {
                final byte one = bytes.get();
                if (one == "\r\n\r\n".charAt(matched)) {
                    if (++matched == 4) {
                        requests++;
                        matched = 0;
                    }
                } else {
                    matched = one == '\r' ? 1 : 0;
                }
            }
            return requests;
        }
    }

    static void http() throws Exception {
        final byte[] replies = REPLY.repeat(BATCH).getBytes(StandardCharsets.US_ASCII);
        final ByteBuffer shared = ByteBuffer.allocateDirect(replies.length).put(replies).flip();
        serve(listen(), connection -> {
            final ByteBuffer buffer = ByteBuffer.allocateDirect(4096), answer = shared.duplicate();
            final Requests requests = new Requests();
            while (connection.read(buffer.clear()) > 0) {
                for (int owed = requests.count(buffer.flip()); owed > 0; ) {
                    final int n = Math.min(owed, BATCH);
                    writeAll(connection, answer.clear().limit(n * REPLY.length()));
                    owed -= n;
                }
            }
        });
    }
}
