import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.RecursiveTask;

// Fork-join as Java has it: not by threads but by the tasks of a ForkJoinPool, where who forks one takes the other.
final class Forks {
    static final class Fib extends RecursiveTask<Long> {
        private final int n;

        Fib(int n) {
            this.n = n;
        }

        @Override
        protected Long compute() {
            if (n < 2) return (long) n;
            final Fib forked = new Fib(n - 1);
            forked.fork();
            final long own = new Fib(n - 2).compute();
            return own + forked.join();
        }
    }

    static void fib() throws Exception {
        final int n = Bench.number("--count", 36);
        long wanted = 0, next = 1;
        for (int i = 0; i < n; i++) {
            final long sum = wanted + next;
            wanted = next;
            next = sum;
        }
        try (ForkJoinPool pool = new ForkJoinPool(Bench.number("--workers", 1))) {
            Bench.warmUp(() -> pool.invoke(new Fib(n - 4)));
            final long[] got = {0};
            Bench.report("call", Bench.perOperation(2 * next - 1, () -> got[0] = pool.invoke(new Fib(n))), "ns");
            Bench.expectSum("fib", got[0], wanted);
        }
    }
}
