// The workloads of bench/*.cpp, on Java's virtual threads: one program, one subcommand each.
//
// Measured as the C++ programs are: inside the process, on the monotonic clock, and printed as `name value unit`. The virtual
// machine interprets first and compiles what is hot, so the warm-up repeats the work until half a second has gone by.
// --workers sets how many carrier threads there are; the body is itself a virtual thread, so that it runs on a carrier as
// everybody else's does. The collector and the compiler have threads of their own beside them.
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeSet;

final class Bench {
    static final long WARM_UP_NS = 500_000_000;
    static final List<String> VALUES =
        List.of("--workers", "--count", "--fibers", "--pairs", "--capacity", "--connections", "--port", "--kind");
    static final List<String> FLAGS = List.of("--many", "--join", "--never-wait", "--serve");

    static String[] words;

    interface Body {
        void run() throws Exception;
    }

    static String text(String name, String otherwise) {
        for (int i = 1; i + 1 < words.length; i++) {
            if (words[i].equals(name)) return words[i + 1];
        }
        return otherwise;
    }

    static int number(String name, int otherwise) {
        return Integer.parseInt(text(name, Integer.toString(otherwise)));
    }

    static boolean has(String name) {
        return List.of(words).contains(name);
    }

    static void report(String name, double value, String unit) {
        System.out.printf(Locale.ROOT, "%s %.3f %s%n", name, value, unit);
    }

    static Thread start(Body body) {
        return Thread.startVirtualThread(() -> {
            try {
                body.run();
            } catch (Exception problem) {
                fail(problem);
            }
        });
    }

    static void fail(Throwable problem) {
        problem.printStackTrace();
        Runtime.getRuntime().halt(1);
    }

    static void warmUp(Body work) throws Exception {
        final long start = System.nanoTime();
        while (System.nanoTime() - start < WARM_UP_NS) work.run();
    }

    static double elapsedNs(Body work) throws Exception {
        final long start = System.nanoTime();
        work.run();
        return System.nanoTime() - start;
    }

    // The rate of a timed run, in nanoseconds for each of n operations.
    static double perOperation(long n, Body work) throws Exception {
        return elapsedNs(work) / n;
    }

    static double statusBytes(String field) throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith(field + ":")) return Double.parseDouble(line.split("\\s+")[1]) * 1024;
        }
        return 0;
    }

    // The time this process has been on a processor, in all its threads and in the kernel on its behalf, in steps of 10 ms.
    static double cpuNs() {
        final var system = ManagementFactory.getOperatingSystemMXBean();
        return ((com.sun.management.OperatingSystemMXBean) system).getProcessCpuTime();
    }

    // Work that was not done must not be timed.
    static void expectSum(String what, long got, long wanted) {
        if (got != wanted) fail(new IllegalStateException(what + ": got " + got + ", expected " + wanted));
    }

    static void refuse(String problem) {
        System.err.println(problem);
        System.exit(2);
    }

    public static void main(String[] arguments) throws Exception {
        final Map<String, Body> commands = Map.ofEntries(
            Map.entry("yield", Threads::yields), Map.entry("spawn", Threads::spawn),
            Map.entry("parked", Threads::parked), Map.entry("idle", Threads::idle),
            Map.entry("ping_pong", Channels::pingPong), Map.entry("channel", Channels::channel),
            Map.entry("ring", Crowds::ring), Map.entry("skynet", Crowds::skynet), Map.entry("mutex", Crowds::mutex),
            Map.entry("sleepers", Crowds::sleepers), Map.entry("echo", Network::echo),
            Map.entry("http", Network::http), Map.entry("fib", Forks::fib), Map.entry("latency", Latency::latency));
        words = arguments;
        if (words.length == 0 || !commands.containsKey(words[0])) {
            refuse("usage: " + String.join("|", new TreeSet<>(commands.keySet())) + " [--workers N] ...");
        }
        for (String word : words) {
            final boolean isKnown = VALUES.contains(word) || FLAGS.contains(word);
            if (word.startsWith("--") && !isKnown) refuse("unknown argument " + word);
        }
        // Read when the first virtual thread is made, and never again.
        final String workers = Integer.toString(number("--workers", 1));
        System.setProperty("jdk.virtualThreadScheduler.parallelism", workers);
        System.setProperty("jdk.virtualThreadScheduler.maxPoolSize", workers);
        Thread.setDefaultUncaughtExceptionHandler((thread, problem) -> fail(problem));
        start(commands.get(words[0])).join();
    }
}
