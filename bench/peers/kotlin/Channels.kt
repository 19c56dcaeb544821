import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.SendChannel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.joinAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.selects.select

suspend fun roundTrips(n: Int) = coroutineScope {
    val there = Channel<Int>()
    val back = Channel<Int>()
    launch {
        for (value in there) back.send(value + 1)
    }
    launch {
        for (i in 0 until n) {
            there.send(i)
            back.receive()
        }
        there.close()
    }
}

suspend fun pingPong() {
    val count = number("--count", 1000000)
    warmUp { roundTrips(count / 10 + 1) }
    report("ping_pong", perOperation(count) { roundTrips(count) }, "ns")
}

suspend fun passOn(pairs: Int, capacity: Int, each: Int) = coroutineScope {
    val items = Channel<Int>(capacity)
    val producers = List(pairs) {
        launch {
            for (one in items) Unit
        }
        launch {
            for (k in 0 until each) items.send(k)
        }
    }
    producers.joinAll()
    items.close()
}

suspend fun sendAndReceive(n: Int) = coroutineScope {
    val items = Channel<Int>(128)
    launch {
        for (i in 0 until n) {
            items.send(i)
            items.receive()
        }
    }
}

suspend fun channel() {
    val count = number("--count", 1000000)
    if (has("--never-wait")) {
        warmUp { sendAndReceive(count / 10 + 1) }
        report("never_wait", perOperation(count) { sendAndReceive(count) }, "ns")
        return
    }
    val pairs = number("--pairs", 1)
    val capacity = number("--capacity", 128)
    val each = count / pairs
    warmUp { passOn(pairs, capacity, each / 10 + 1) }
    report("item", perOperation(each * pairs) { passOn(pairs, capacity, each) }, "ns")
}

// Every message may come on either of two channels, and takes them in turn.
suspend fun selectTrips(n: Int) {
    val there = List(2) { Channel<Int>() }
    val back = List(2) { Channel<Int>() }
    var sum = 0L
    coroutineScope {
        launch {
            repeat(n) {
                select<Unit> {
                    there[0].onReceive { back[0].send(it + 1) }
                    there[1].onReceive { back[1].send(it + 1) }
                }
            }
        }
        launch {
            for (i in 0 until n) {
                there[i % 2].send(i)
                sum += select<Int> {
                    back[0].onReceive { it }
                    back[1].onReceive { it }
                }
            }
        }
    }
    expectSum("select", sum, n * (n + 1L) / 2)
}

suspend fun selects() {
    val count = number("--count", 1000000)
    warmUp { selectTrips(count / 10 + 1) }
    report("select", perOperation(count) { selectTrips(count) }, "ns")
}

suspend fun goRound(fibers: Int, rounds: Int) {
    val links = List(fibers) { Channel<Int>() }
    var token = 0
    coroutineScope {
        launch {
            repeat(rounds) {
                links[1].send(token + 1)
                token = links[0].receive()
            }
        }
        for (i in 1 until fibers) {
            val own = links[i]
            val next = links[(i + 1) % fibers]
            launch {
                repeat(rounds) { next.send(own.receive() + 1) }
            }
        }
    }
    expectSum("ring", token.toLong(), fibers.toLong() * rounds)
}

suspend fun ring() {
    val fibers = number("--fibers", 2)
    val rounds = number("--count", 1000000) / fibers
    warmUp { goRound(fibers, rounds / 10 + 1) }
    report("hop", perOperation(fibers * rounds) { goRound(fibers, rounds) }, "ns")
}

const val CHILDREN = 10

suspend fun CoroutineScope.node(up: SendChannel<Long>, first: Int, leaves: Int) {
    if (leaves == 1) return up.send(first.toLong())
    val own = Channel<Long>()
    val each = leaves / CHILDREN
    for (i in 0 until CHILDREN) {
        launch { node(own, first + i * each, each) }
    }
    var sum = 0L
    repeat(CHILDREN) { sum += own.receive() }
    up.send(sum)
}

suspend fun throughChannels(leaves: Int): Long = coroutineScope {
    val root = Channel<Long>()
    launch { node(root, 0, leaves) }
    root.receive()
}

suspend fun joined(first: Int, leaves: Int): Long {
    if (leaves == 1) return first.toLong()
    val results = LongArray(CHILDREN)
    val each = leaves / CHILDREN
    coroutineScope {
        for (i in 0 until CHILDREN) {
            launch { results[i] = joined(first + i * each, each) }
        }
    }
    return results.sum()
}

suspend fun skynet() {
    val leaves = number("--count", 1000000)
    suspend fun tree() {
        val sum = if (has("--join")) joined(0, leaves) else throughChannels(leaves)
        expectSum("skynet", sum, leaves * (leaves - 1L) / 2)
    }
    report("skynet_cold", elapsedNs { tree() } / 1e6, "ms")
    warmUp { tree() }
    report("skynet", elapsedNs { tree() } / 1e6, "ms")
}
