import java.util.concurrent.atomic.AtomicInteger
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.withTimeout
import kotlinx.coroutines.yield

suspend fun yieldTogether(fibers: Int, each: Int) = coroutineScope {
    repeat(fibers) {
        launch {
            repeat(each) { yield() }
        }
    }
}

suspend fun yields() {
    val fibers = number("--fibers", 2)
    val each = number("--count", 1000000) / fibers
    warmUp { yieldTogether(fibers, each / 10 + 1) }
    report("yield", perOperation(each * fibers) { yieldTogether(fibers, each) }, "ns")
}

suspend fun CoroutineScope.spawnInTurn(n: Int) = repeat(n) { launch {}.join() }

suspend fun CoroutineScope.spawnAtOnce(room: Array<Job?>) {
    for (i in room.indices) room[i] = launch {}
    for (one in room) one!!.join()
}

suspend fun CoroutineScope.spawn() {
    val count = number("--count", 1000000)
    if (!has("--many")) {
        warmUp { spawnInTurn(count / 10 + 1) }
        report("spawn_join", perOperation(count) { spawnInTurn(count) }, "ns")
        return
    }
    val room = arrayOfNulls<Job>(count)
    report("spawn_many_cold", perOperation(count) { spawnAtOnce(room) }, "ns")
    warmUp { spawnAtOnce(room) }
    report("spawn_many", perOperation(count) { spawnAtOnce(room) }, "ns")
}

// Many coroutines wait on one channel.
class Crowd(val scope: CoroutineScope) {
    val gate = Channel<Int>()
    val arrived = AtomicInteger()
    val gone = AtomicInteger()

    suspend fun grow(n: Int) {
        val before = arrived.get()
        repeat(n) {
            scope.launch {
                arrived.incrementAndGet()
                gate.receiveCatching()
                gone.incrementAndGet()
            }
        }
        while (arrived.get() != before + n) yield()
    }

    suspend fun wake() {
        gate.close()
        while (gone.get() != arrived.get()) yield()
    }
}

// The warm-up is by small crowds that come and go: a large one would leave behind the memory that the next is to be charged for.
// Memory is read when what nobody holds any more has been collected, which is not part of any time.
suspend fun CoroutineScope.parked() {
    val count = number("--count", 1000000)
    val crowd = Crowd(this)
    crowd.grow(1)
    System.gc()
    val resident = statusBytes("VmRSS")
    val tables = statusBytes("VmPTE")
    warmUp {
        val small = Crowd(this)
        small.grow(1000)
        small.wake()
    }
    report("create", perOperation(count) { crowd.grow(count) }, "ns")
    System.gc()
    report("resident", (statusBytes("VmRSS") - resident) / count, "bytes")
    report("page_tables", (statusBytes("VmPTE") - tables) / count, "bytes")
    report("wake", perOperation(count) { crowd.wake() }, "ns")
}

suspend fun contend(fibers: Int, each: Int) {
    val lock = Mutex()
    var total = 0L
    coroutineScope {
        repeat(fibers) {
            launch {
                repeat(each) {
                    lock.lock()
                    total++
                    lock.unlock()
                }
            }
        }
    }
    expectSum("mutex", total, fibers.toLong() * each)
}

suspend fun mutex() {
    val fibers = number("--fibers", 2)
    val each = number("--count", 1000000) / fibers
    warmUp { contend(fibers, each / 10 + 1) }
    report("lock", perOperation(fibers * each) { contend(fibers, each) }, "ns")
}

suspend fun meanLatenessNs(n: Int): Double {
    val lateNs = DoubleArray(n)
    coroutineScope {
        for (i in 0 until n) {
            val pauseMs = 1 + i * 999L / n
            launch {
                val due = System.nanoTime() + pauseMs * 1_000_000
                delay(pauseMs)
                lateNs[i] = (System.nanoTime() - due).toDouble()
            }
        }
    }
    return lateNs.average()
}

// The crowd in between is the warm-up: its code has been compiled when the last one sleeps.
suspend fun sleepers() {
    val count = number("--count", 100000)
    val before = cpuNs()
    meanLatenessNs(count)
    report("cpu_cold", (cpuNs() - before) / 1e6, "ms")
    meanLatenessNs(count)
    val between = cpuNs()
    val lateNs = meanLatenessNs(count)
    report("cpu", (cpuNs() - between) / 1e6, "ms")
    report("late", lateNs / 1e6, "ms")
}

const val TOGETHER = 100

suspend fun startChildren(n: Int) {
    val sum = AtomicInteger()
    for (done in 0 until n step TOGETHER) {
        coroutineScope {
            repeat(TOGETHER) {
                launch { sum.incrementAndGet() }
            }
        }
    }
    expectSum("children", sum.get().toLong(), ((n + TOGETHER - 1) / TOGETHER * TOGETHER).toLong())
}

suspend fun limits(n: Int) = repeat(n) { withTimeout(3_600_000) { yield() } }

suspend fun CoroutineScope.cancelCrowd(n: Int): Double {
    val quiet = Channel<Int>()
    val arrived = AtomicInteger()
    val gone = AtomicInteger()
    val group = launch {
        repeat(n) {
            launch {
                arrived.incrementAndGet()
                try {
                    quiet.receive()
                } finally {
                    gone.incrementAndGet()
                }
            }
        }
    }
    while (arrived.get() != n) yield()
    yield()
    val takenNs = elapsedNs {
        group.cancel()
        while (gone.get() != n) yield()
    }
    group.join()
    return takenNs
}

suspend fun CoroutineScope.nurseries() {
    val count = number("--count", 1000000)
    val crowd = number("--crowd", 100000)
    warmUp { startChildren(count / 10 + 1) }
    report("child", perOperation(count) { startChildren(count) }, "ns")
    warmUp { limits(count / 10 + 1) }
    report("limit", perOperation(count) { limits(count) }, "ns")
    warmUp { cancelCrowd(crowd) }
    report("cancelled", cancelCrowd(crowd) / crowd, "ns")
}
