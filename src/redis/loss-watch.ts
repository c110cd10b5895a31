/**
 * Detected loss is never silent. After every reconnect, before anything else goes over that connection, each partition's logs
 * are compared with the newest ids that this process was told of, and each outbox with what other partitions took over from
 * it: a server that crashed, or a replica that became the primary, may lack the newest entries.
 *
 * What is missing is an alarm, and ids that were given out are not given out again. Whoever looks first moves the ids; the
 * others tell of what they know.
 */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { compareEntryIds, replyArray, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { type PartitionKeys, partitionKeys } from './keys.ts'
import { MARKED_LOGS, type MarkedLog, type Marks } from './stream-marks.ts'

export interface LossWatchParts {
  readonly telemetry: Telemetry
  /** Number of partitions by stream. */
  readonly streams: Iterable<{ readonly name: string; readonly partitions: number }>
  /** Calls after so many ms. Default: by the network's own timer. */
  readonly after?: (ms: number, call: () => void) => void
}

const LOG_WORDS: Readonly<Record<MarkedLog, string>> = {
  commands: 'accepted commands',
  ready: 'retries and other commands that were ready to run',
  events: 'events',
  counter: 'commands that waited for their time',
}

/** Names of alarms end in `-lost`. */
const ALARMS: Readonly<Record<MarkedLog, string>> = {
  commands: 'commands-lost',
  ready: 'ready-lost',
  events: 'events-lost',
  counter: 'delayed-lost',
}

const RETRY_MS = 1000

export class LossWatch {
  readonly #parts: LossWatchParts
  readonly #partitions: readonly PartitionKeys[]

  constructor(parts: LossWatchParts) {
    this.#parts = parts
    this.#partitions = [...parts.streams].flatMap(({ name, partitions }) =>
      Array.from({ length: partitions }, (_, partition) => partitionKeys(name, partition)),
    )
  }

  /** Looks now, and after every reconnect of this link. */
  async watch(link: RedisLink): Promise<void> {
    link.onReady(() => void this.#look(link))
    await this.#look(link)
  }

  async #look(link: RedisLink): Promise<void> {
    const { generation } = link
    try {
      // All are sent in this turn: what others send over this link comes after them.
      await Promise.all([...link.marks.entries()].map(([keys, marks]) => this.#compare(link, keys, marks)))
      await this.#compareOutboxes(link)
    } catch (error) {
      this.#parts.telemetry.emit('service.failed', { service: 'loss-watch', error: describeError(error) })
      // A connection that was lost again starts anew by itself.
      const { after = afterTimeout } = this.#parts
      after(RETRY_MS, () => {
        if (link.ready && link.generation === generation) void this.#look(link)
      })
    }
  }

  async #compare(link: RedisLink, keys: PartitionKeys, marks: Marks): Promise<void> {
    const logs = [keys.commands, keys.ready, keys.events, keys.counter, keys.floors]
    const reply = replyArray(
      await link.evaluate(
        'restore-ids',
        logs,
        MARKED_LOGS.map((log) => marks[log]),
      ),
    )
    for (const [i, log] of MARKED_LOGS.entries()) {
      const [state, before] = replyArray(reply[i]).map(replyText)
      if (state === '') continue
      link.marks.forget(keys, log, marks[log])
      const range = `after ${before} up to ${marks[log]}`
      const place = `${keys.stream}.${keys.partition}`
      this.#parts.telemetry.emit('alarm.raised', {
        alarm: ALARMS[log],
        stream: keys.stream,
        detail: `Redis lost ${LOG_WORDS[log]} of ${place}: what it had given ids ${range} is gone. It crashed, or a replica that lacked them became the primary. No id is given out twice.`,
      })
    }
  }

  async #compareOutboxes(link: RedisLink): Promise<void> {
    const taken = new Map<string, string>()
    const replies = await link.use('what was taken over from outboxes', (client) =>
      Promise.all(this.#partitions.map((keys) => client.hgetall(keys.watermarks))),
    )
    for (const marks of replies) {
      for (const [source, id] of Object.entries(marks)) {
        const known = taken.get(source)
        if (known === undefined || compareEntryIds(known, id) < 0) taken.set(source, id)
      }
    }
    await Promise.all(
      this.#partitions.map(async (keys) => {
        const place = `${keys.stream}.${keys.partition}`
        const id = taken.get(place)
        const last =
          id === undefined ? '' : replyText(await link.evaluate('restore-outbox', [keys.outbox], [id]))
        if (last === '') return
        this.#parts.telemetry.emit('alarm.raised', {
          alarm: 'outbox-lost',
          stream: keys.stream,
          detail: `Redis lost the end of the outbox of ${place}: it ended with ${last}, others have taken over up to ${id}. No id is given out twice.`,
        })
      }),
    )
  }
}

function afterTimeout(ms: number, call: () => void): void {
  AbortSignal.timeout(ms).onabort = call
}
