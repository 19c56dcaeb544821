import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

final class Threads {
    static void joinAll(Thread[] crowd) throws InterruptedException {
        for (Thread one : crowd) one.join();
    }

    static void yieldTogether(int threads, int each) throws Exception {
        final Thread[] crowd = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            crowd[i] = Bench.start(() -> {
                for (int k = 0; k < each; k++) Thread.yield();
            });
        }
        joinAll(crowd);
    }

    static void yields() throws Exception {
        final int threads = Bench.number("--fibers", 2);
        final int each = Bench.number("--count", 1000000) / threads;
        Bench.warmUp(() -> yieldTogether(threads, each / 10 + 1));
        Bench.report("yield", Bench.perOperation((long) each * threads, () -> yieldTogether(threads, each)), "ns");
    }

    static void spawnInTurn(int n) throws Exception {
        for (int i = 0; i < n; i++) Thread.startVirtualThread(() -> {}).join();
    }

    static void spawnAtOnce(Thread[] room) throws Exception {
        for (int i = 0; i < room.length; i++) room[i] = Thread.startVirtualThread(() -> {});
        joinAll(room);
    }

    static void spawn() throws Exception {
        final int count = Bench.number("--count", 1000000);
        if (!Bench.has("--many")) {
            Bench.warmUp(() -> spawnInTurn(count / 10 + 1));
            Bench.report("spawn_join", Bench.perOperation(count, () -> spawnInTurn(count)), "ns");
            return;
        }
        final Thread[] room = new Thread[count];
        Bench.report("spawn_many_cold", Bench.perOperation(count, () -> spawnAtOnce(room)), "ns");
        Bench.warmUp(() -> spawnAtOnce(room));
        Bench.report("spawn_many", Bench.perOperation(count, () -> spawnAtOnce(room)), "ns");
    }

    // Many threads wait at one gate. A queue of Java's cannot be closed, so the gate is a latch.
    static final class Crowd {
        final CountDownLatch gate = new CountDownLatch(1);
        final AtomicLong arrived = new AtomicLong();
        final AtomicLong gone = new AtomicLong();

        void grow(int n) {
            final long before = arrived.get();
            for (int i = 0; i < n; i++) {
                Bench.start(() -> {
                    arrived.incrementAndGet();
                    gate.await();
                    gone.incrementAndGet();
                });
            }
            while (arrived.get() != before + n) Thread.yield();
        }

        void wake() {
            gate.countDown();
            while (gone.get() != arrived.get()) Thread.yield();
        }
    }

    // The warm-up is by small crowds that come and go: a large one would leave behind the memory that the next is to be charged
    // for. Memory is read when what nobody holds any more has been collected, which is not part of any time.
    static void parked() throws Exception {
        final int count = Bench.number("--count", 1000000);
        final Crowd crowd = new Crowd();
        crowd.grow(1);
        System.gc();
        final double resident = Bench.statusBytes("VmRSS"), tables = Bench.statusBytes("VmPTE");
        Bench.warmUp(() -> {
            final Crowd small = new Crowd();
            small.grow(1000);
            small.wake();
        });
        Bench.report("create", Bench.perOperation(count, () -> crowd.grow(count)), "ns");
        System.gc();
        Bench.report("resident", (Bench.statusBytes("VmRSS") - resident) / count, "bytes");
        Bench.report("page_tables", (Bench.statusBytes("VmPTE") - tables) / count, "bytes");
        Bench.report("wake", Bench.perOperation(count, crowd::wake), "ns");
    }

    // Parked threads and one that waits for a connection nobody makes. The script that started us watches what it costs.
    static void idle() throws Exception {
        final ServerSocket listener = new ServerSocket();
        listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
        final Crowd crowd = new Crowd();
        crowd.grow(Bench.number("--count", 10000));
        Bench.start(listener::accept);
        for (int i = 0; i < 100; i++) Thread.yield();
        System.out.println("ready");
        crowd.gate.await();
    }
}
