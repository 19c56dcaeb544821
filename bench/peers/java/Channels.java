import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.SynchronousQueue;

// A channel is the bounded blocking queue everybody takes; SynchronousQueue is the one without room. They hold objects, so
// that a number is boxed, and cannot be closed, so that a last number says that it was the last.
final class Channels {
    static final Integer LAST = -1;

    static <T> BlockingQueue<T> queue(int capacity) {
        return capacity == 0 ? new SynchronousQueue<>() : new ArrayBlockingQueue<>(capacity);
    }

    static void roundTrips(int n) throws Exception {
        final BlockingQueue<Integer> there = queue(0), back = queue(0);
        final Thread answers = Bench.start(() -> {
            for (int value; (value = there.take()) != LAST; ) back.put(value + 1);
        });
        final Thread asks = Bench.start(() -> {
            for (int i = 0; i < n; i++) {
                there.put(i);
                back.take();
            }
            there.put(LAST);
        });
        asks.join();
        answers.join();
    }

    static void pingPong() throws Exception {
        final int count = Bench.number("--count", 1000000);
        Bench.warmUp(() -> roundTrips(count / 10 + 1));
        Bench.report("ping_pong", Bench.perOperation(count, () -> roundTrips(count)), "ns");
    }

    static void passOn(int pairs, int capacity, int each) throws Exception {
        final BlockingQueue<Integer> items = queue(capacity);
        final Thread[] producers = new Thread[pairs], consumers = new Thread[pairs];
        for (int i = 0; i < pairs; i++) {
            consumers[i] = Bench.start(() -> {
                while (items.take() != LAST) {}
            });
            producers[i] = Bench.start(() -> {
                for (int k = 0; k < each; k++) items.put(k);
            });
        }
        Threads.joinAll(producers);
        for (int i = 0; i < pairs; i++) items.put(LAST);
        Threads.joinAll(consumers);
    }

    static void sendAndReceive(int n) throws Exception {
        final BlockingQueue<Integer> items = queue(128);
        Bench.start(() -> {
            for (int i = 0; i < n; i++) {
                items.put(i);
                items.take();
            }
        }).join();
    }

    static void channel() throws Exception {
        final int count = Bench.number("--count", 1000000);
        if (Bench.has("--never-wait")) {
            Bench.warmUp(() -> sendAndReceive(count / 10 + 1));
            Bench.report("never_wait", Bench.perOperation(count, () -> sendAndReceive(count)), "ns");
            return;
        }
        final int pairs = Bench.number("--pairs", 1), capacity = Bench.number("--capacity", 128), each = count / pairs;
        Bench.warmUp(() -> passOn(pairs, capacity, each / 10 + 1));
        Bench.report("item", Bench.perOperation((long) each * pairs, () -> passOn(pairs, capacity, each)), "ns");
    }
}
