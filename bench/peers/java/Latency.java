import java.time.Duration;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

// How long after it could have gone on a thread does so. Prints every sample, in ns; the kinds are those of bench/latency.cpp.
final class Latency {
    static long[] wokenByAThread(int n) throws Exception {
        final long[] samples = new long[n];
        final BlockingQueue<Long> moments = new ArrayBlockingQueue<>(1);
        final Thread sender = Thread.ofPlatform().start(() -> {
            try {
                for (int i = 0; i < n; i++) {
                    Thread.sleep(Duration.ofNanos(300_000));
                    moments.put(System.nanoTime());
                }
            } catch (InterruptedException problem) {
                Bench.fail(problem);
            }
        });
        for (int i = 0; i < n; i++) {
            final long sentNs = moments.take();
            samples[i] = System.nanoTime() - sentNs;
        }
        sender.join();
        return samples;
    }

    static long[] wokenAmongYielding(int n) throws Exception {
        final long[] samples = new long[n];
        final AtomicBoolean isOver = new AtomicBoolean();
        final AtomicInteger received = new AtomicInteger();
        final Thread[] others = new Thread[100];
        for (int i = 0; i < others.length; i++) {
            others[i] = Bench.start(() -> {
                while (!isOver.get()) Thread.yield();
            });
        }
        final BlockingQueue<Long> moments = new ArrayBlockingQueue<>(1);
        final Thread receiver = Bench.start(() -> {
            for (int i = 0; i < n; i++) {
                final long sentNs = moments.take();
                samples[i] = System.nanoTime() - sentNs;
                received.incrementAndGet();
            }
        });
        for (int i = 0; i < n; i++) {
            Thread.yield();
            moments.put(System.nanoTime());
            while (received.get() != i + 1) Thread.yield();
        }
        isOver.set(true);
        receiver.join();
        Threads.joinAll(others);
        return samples;
    }

    static void loadByHalf(AtomicBoolean isOver) throws Exception {
        long nextNs = System.nanoTime();
        while (!isOver.get()) {
            nextNs = Math.max(nextNs + 200_000, System.nanoTime());
            Thread.sleep(Duration.ofNanos(nextNs - System.nanoTime()));
            final long endNs = System.nanoTime() + 100_000;
            while (System.nanoTime() < endNs) {}
        }
    }

    static final int SLEEPERS = 10;

    static long[] lateness(int n, int loads) throws Exception {
        final int each = n / SLEEPERS;
        final long[] samples = new long[each * SLEEPERS];
        final AtomicBoolean isOver = new AtomicBoolean();
        final Thread[] busy = new Thread[loads], running = new Thread[SLEEPERS];
        for (int i = 0; i < loads; i++) busy[i] = Bench.start(() -> loadByHalf(isOver));
        for (int i = 0; i < SLEEPERS; i++) {
            final int first = i * each;
            running[i] = Bench.start(() -> {
                for (int k = 0; k < each; k++) {
                    final long dueNs = System.nanoTime() + 1_000_000;
                    Thread.sleep(1);
                    samples[first + k] = System.nanoTime() - dueNs;
                }
            });
        }
        Threads.joinAll(running);
        isOver.set(true);
        Threads.joinAll(busy);
        return samples;
    }

    static long[] samples(String kind, int n) throws Exception {
        final int workers = Bench.number("--workers", 1);
        return switch (kind) {
            case "woken" -> wokenByAThread(n);
            case "woken_busy" -> wokenAmongYielding(n);
            case "timer" -> lateness(n, 0);
            case "timer_busy" -> lateness(n, workers);
            default -> throw new IllegalArgumentException("no such kind: " + kind);
        };
    }

    // Who waits most of the time is slow to be compiled: those who never do warm up for him too.
    static void latency() throws Exception {
        final String kind = Bench.text("--kind", "woken");
        final int count = Bench.number("--count", 3000);
        Bench.warmUp(() -> wokenAmongYielding(1000));
        Bench.warmUp(() -> samples(kind, count / 10 + SLEEPERS));
        final StringBuilder lines = new StringBuilder();
        for (long one : samples(kind, count)) lines.append("sample ").append(one).append(" ns\n");
        System.out.print(lines);
    }
}
