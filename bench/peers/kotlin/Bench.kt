// The workloads of bench/*.cpp, on Kotlin's coroutines: one program, one subcommand each.
//
// Measured as the C++ programs are: inside the process, on the monotonic clock, and printed as `name value unit`. The virtual
// machine interprets first and compiles what is hot, so the warm-up repeats the work until half a second has gone by. One
// worker is the event loop of runBlocking, more are Dispatchers.Default with a pool of that size; everything else is left as
// it is shipped.
import java.io.File
import java.lang.management.ManagementFactory
import java.util.Locale
import kotlin.system.exitProcess
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking

const val WARM_UP_NS = 500_000_000L
val numbers = setOf("--workers", "--count", "--fibers", "--crowd", "--pairs", "--capacity")
val flags = setOf("--many", "--join", "--never-wait")

lateinit var words: List<String>

fun number(name: String, otherwise: Int): Int {
    val at = words.indexOf(name)
    return if (at >= 0) words[at + 1].toInt() else otherwise
}

fun has(name: String) = name in words

fun report(name: String, value: Double, unit: String) = println("%s %.3f %s".format(Locale.ROOT, name, value, unit))

inline fun warmUp(work: () -> Unit) {
    val start = System.nanoTime()
    while (System.nanoTime() - start < WARM_UP_NS) work()
}

inline fun elapsedNs(work: () -> Unit): Double {
    val start = System.nanoTime()
    work()
    return (System.nanoTime() - start).toDouble()
}

// The rate of a timed run, in nanoseconds for each of n operations.
inline fun perOperation(n: Int, work: () -> Unit) = elapsedNs(work) / n

fun statusBytes(field: String): Double {
    val line = File("/proc/self/status").readLines().first { it.startsWith("$field:") }
    return line.split(Regex("\\s+"))[1].toDouble() * 1024
}

// The time this process has been on a processor, in all its threads and in the kernel on its behalf, in steps of 10 ms.
fun cpuNs(): Double {
    val system = ManagementFactory.getOperatingSystemMXBean() as com.sun.management.OperatingSystemMXBean
    return system.processCpuTime.toDouble()
}

fun refuse(problem: String, code: Int = 2): Nothing {
    System.err.println(problem)
    exitProcess(code)
}

// Work that was not done must not be timed.
fun expectSum(what: String, got: Long, wanted: Long) {
    if (got != wanted) refuse("$what: got $got, expected $wanted", 1)
}

val commands: Map<String, suspend CoroutineScope.() -> Unit> = mapOf(
    "yield" to { yields() }, "spawn" to { spawn() }, "parked" to { parked() }, "nursery" to { nurseries() },
    "ping_pong" to { pingPong() }, "channel" to { channel() }, "select" to { selects() }, "ring" to { ring() },
    "skynet" to { skynet() }, "mutex" to { mutex() }, "sleepers" to { sleepers() },
)

fun main(arguments: Array<String>) {
    words = arguments.drop(1)
    val usage = "usage: ${commands.keys.joinToString("|")} [--workers N] ..."
    val body = commands[arguments.firstOrNull()] ?: refuse(usage)
    words.find { it.startsWith("--") && it !in numbers && it !in flags }?.let { refuse("unknown argument $it") }
    val workers = number("--workers", 1)
    if (workers == 1) return runBlocking(block = body)
    // Read when the dispatcher is made, and never again.
    System.setProperty("kotlinx.coroutines.scheduler.core.pool.size", "$workers")
    System.setProperty("kotlinx.coroutines.scheduler.max.pool.size", "$workers")
    runBlocking(Dispatchers.Default, body)
}
