import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.locks.ReentrantLock;

final class Crowds {
    static void goRound(int threads, int rounds) throws Exception {
        final List<BlockingQueue<Integer>> links = new ArrayList<>();
        for (int i = 0; i < threads; i++) links.add(Channels.queue(0));
        final int[] token = {0};
        final Thread[] crowd = new Thread[threads];
        crowd[0] = Bench.start(() -> {
            for (int k = 0; k < rounds; k++) {
                links.get(1).put(token[0] + 1);
                token[0] = links.get(0).take();
            }
        });
        for (int i = 1; i < threads; i++) {
            final BlockingQueue<Integer> own = links.get(i), next = links.get((i + 1) % threads);
            crowd[i] = Bench.start(() -> {
                for (int k = 0; k < rounds; k++) next.put(own.take() + 1);
            });
        }
        Threads.joinAll(crowd);
        Bench.expectSum("ring", token[0], (long) threads * rounds);
    }

    static void ring() throws Exception {
        final int threads = Bench.number("--fibers", 2), rounds = Bench.number("--count", 1000000) / threads;
        Bench.warmUp(() -> goRound(threads, rounds / 10 + 1));
        Bench.report("hop", Bench.perOperation((long) threads * rounds, () -> goRound(threads, rounds)), "ns");
    }

    static final int CHILDREN = 10;

    static void node(BlockingQueue<Long> up, int first, int leaves) throws Exception {
        if (leaves == 1) {
            up.put((long) first);
            return;
        }
        final BlockingQueue<Long> own = Channels.queue(0);
        final int each = leaves / CHILDREN;
        for (int i = 0; i < CHILDREN; i++) {
            final int number = first + i * each;
            Bench.start(() -> node(own, number, each));
        }
        long sum = 0;
        for (int i = 0; i < CHILDREN; i++) sum += own.take();
        up.put(sum);
    }

    static long throughChannels(int leaves) throws Exception {
        final BlockingQueue<Long> root = Channels.queue(0);
        Bench.start(() -> node(root, 0, leaves));
        return root.take();
    }

    static long joined(int first, int leaves) throws Exception {
        if (leaves == 1) return first;
        final long[] results = new long[CHILDREN];
        final Thread[] below = new Thread[CHILDREN];
        final int each = leaves / CHILDREN;
        for (int i = 0; i < CHILDREN; i++) {
            final int own = i;
            below[i] = Bench.start(() -> results[own] = joined(first + own * each, each));
        }
        Threads.joinAll(below);
        long sum = 0;
        for (long result : results) sum += result;
        return sum;
    }

    static void skynet() throws Exception {
        final long leaves = Bench.number("--count", 1000000);
        final Bench.Body tree = () -> {
            final long sum = Bench.has("--join") ? joined(0, (int) leaves) : throughChannels((int) leaves);
            Bench.expectSum("skynet", sum, leaves * (leaves - 1) / 2);
        };
        Bench.report("skynet_cold", Bench.elapsedNs(tree) / 1e6, "ms");
        Bench.warmUp(tree);
        Bench.report("skynet", Bench.elapsedNs(tree) / 1e6, "ms");
    }

    static void contend(int threads, int each) throws Exception {
        final ReentrantLock lock = new ReentrantLock();
        final long[] total = {0};
        final Thread[] crowd = new Thread[threads];
        for (int i = 0; i < threads; i++) {
            crowd[i] = Bench.start(() -> {
                for (int k = 0; k < each; k++) {
                    lock.lock();
                    total[0]++;
                    lock.unlock();
                }
            });
        }
        Threads.joinAll(crowd);
        Bench.expectSum("mutex", total[0], (long) threads * each);
    }

    static void mutex() throws Exception {
        final int threads = Bench.number("--fibers", 2), each = Bench.number("--count", 1000000) / threads;
        Bench.warmUp(() -> contend(threads, each / 10 + 1));
        Bench.report("lock", Bench.perOperation((long) threads * each, () -> contend(threads, each)), "ns");
    }

    static double meanLatenessNs(int n) throws Exception {
        final double[] lateNs = new double[n];
        final Thread[] crowd = new Thread[n];
        for (int i = 0; i < n; i++) {
            final int own = i;
            final long pauseMs = 1 + i * 999L / n;
            crowd[i] = Bench.start(() -> {
                final long due = System.nanoTime() + pauseMs * 1_000_000;
                Thread.sleep(pauseMs);
                lateNs[own] = System.nanoTime() - due;
            });
        }
        Threads.joinAll(crowd);
        double sum = 0;
        for (double late : lateNs) sum += late;
        return sum / n;
    }

    // The crowd in between is the warm-up: its code has been compiled when the last one sleeps.
    static void sleepers() throws Exception {
        final int count = Bench.number("--count", 100000);
        final double before = Bench.cpuNs();
        meanLatenessNs(count);
        Bench.report("cpu_cold", (Bench.cpuNs() - before) / 1e6, "ms");
        meanLatenessNs(count);
        final double between = Bench.cpuNs();
        final double lateNs = meanLatenessNs(count);
        Bench.report("cpu", (Bench.cpuNs() - between) / 1e6, "ms");
        Bench.report("late", lateNs / 1e6, "ms");
    }
}
