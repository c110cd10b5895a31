/**
 * Writes this process's heartbeat from a thread of its own, so that a busy event loop does not look like a dead process.
 *
 * For the same reason the thread looks out for consumers that are dead, and tells the main loop of them.
 *
 * It also watches the main loop: stuck beyond the longest handler limit plus grace, it ends the process, whose
 * work is then taken over. A pause of the whole process (SIGSTOP, a machine that slept) is no fault of the loop and does
 * not count.
 */
import { RedisLinks } from '../redis/connection.ts'
import { writeBeat } from '../redis/consumer-group.ts'
import { partitionKeys } from '../redis/keys.ts'
import { leavingBeat } from '../redis/partition-lease.ts'
import { SYSTEM_CLOCK } from './clock.ts'
import type { HeartbeatOrder, HeartbeatReport } from './heartbeat.ts'
import { lookOut, lookOutForLeases } from './lookout.ts'

declare const self: {
  onmessage: ((event: { data: HeartbeatOrder | 'leave' | 'stop' }) => void) | null
  postMessage(value: HeartbeatReport): void
}

/** What a round may take beyond its own limits before the whole process must have been paused. */
const ROUND_GRACE_MS = 500

/** Beats in a row without an answer, after which the connection is taken to be dead although it looks alive. */
const UNANSWERED_MAX = 2

let stopped = false
let leaving = false

async function beat(order: HeartbeatOrder): Promise<void> {
  const clock = SYSTEM_CLOCK
  const commandTimeoutMs = Math.max(1000, order.intervalMs * 3)
  const roundMaxMs = 2 * order.intervalMs + commandTimeoutMs + ROUND_GRACE_MS
  const links = new RedisLinks({
    address: { url: order.url },
    telemetry: { emit: () => undefined },
    random: () => clock.random(),
    blockMs: order.intervalMs,
    commandTimeoutMs,
  })
  const link = links.open('command')
  const { consumer, lookEveryMs, partitions, orderedStreams } = order
  const beatKeys = [
    ...partitions.map((place) => partitionKeys(place.stream, place.partition).beats),
    ...orderedStreams.map(({ stream }) => partitionKeys(stream, 0).beats),
  ]
  const tick = new Int32Array(order.tick)
  let count = 0
  let seenTick = -1
  let seenMs = clock.monotonicMs()
  let roundMs = seenMs
  let announced = false
  let unanswered = 0
  while (!stopped) {
    const nowMs = clock.monotonicMs()
    const current = Atomics.load(tick, 0)
    const wasPaused = nowMs - roundMs > roundMaxMs
    roundMs = nowMs
    if (current !== seenTick || wasPaused) {
      seenTick = current
      seenMs = nowMs
    } else if (nowMs - seenMs > order.stuckAfterMs) {
      process.stderr.write(
        `millrace: the event loop has been stuck for ${Math.round(nowMs - seenMs)} ms; ending the process\n`,
      )
      process.kill(process.pid, 'SIGKILL')
    }
    count += 1
    try {
      await link.whenReady(order.intervalMs)
      const value = `${count}:${current}`
      await writeBeat(link, beatKeys, consumer, leaving ? leavingBeat(value) : value)
      unanswered = 0
      if (!announced) {
        announced = true
        self.postMessage('beating')
        const looking = { link, clock, consumer, lookEveryMs, isStopped: () => stopped }
        for (const place of partitions) void lookOut(place, looking, (sighting) => self.postMessage(sighting))
        for (const place of orderedStreams) {
          void lookOutForLeases(place, looking, (sighting) => self.postMessage(sighting))
        }
      }
    } catch {
      // Redis is away: whoever judges us can't see it either. Or only this connection is: then it is dialled again.
      unanswered += 1
      if (unanswered >= UNANSWERED_MAX && link.ready) {
        unanswered = 0
        link.reconnect()
      }
    }
    await clock.sleep(order.intervalMs)
  }
  links.closeAll()
  self.postMessage('stopped')
}

self.onmessage = ({ data }) => {
  if (data === 'stop') stopped = true
  else if (data === 'leave') leaving = true
  else void beat(data)
}
