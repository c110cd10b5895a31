/** How far the streams of a partition have come: what was added, what was given to a worker, what waits. One script. */
import type { StreamSign } from '../policies/loss-signs.ts'
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import type { PartitionKeys } from './keys.ts'

export interface LogProgress {
  /** Entries in the stream, acknowledged but untrimmed ones included. */
  readonly entries: number
  /** Entries that no worker has finished: not given out, or in hand. Where Redis can't tell, all that are in the stream. */
  readonly unfinished: number
  /** Entries ever added to it; undefined without a stream. A smaller number than before: it is another stream. */
  readonly added: number | undefined
  readonly lastId: string
  /** The last entry that a worker was given. */
  readonly deliveredId: string
  /** The first entry that no worker was given; undefined when none waits. */
  readonly waitingId: string | undefined
}

/** What tells a stream from another one in its place. */
export function signOf({ added, lastId }: LogProgress): StreamSign {
  return { added, lastMs: Number(lastId.split('-', 1)[0]) }
}

export interface PartitionProgress {
  /** The server's clock, ms since 1970. */
  readonly serverMs: number
  readonly commands: LogProgress
  readonly ready: LogProgress
  /** `unfinished`, `deliveredId` and `waitingId` tell nothing here: readers of events keep their own checkpoints. */
  readonly events: LogProgress
}

export async function readProgress(link: RedisLink, keys: PartitionKeys): Promise<PartitionProgress> {
  const reply = replyArray(await link.run('progress', [keys.commands, keys.ready, keys.events], []))
  return {
    serverMs: replyNumber(reply[0]),
    commands: toLog(reply[1]),
    ready: toLog(reply[2]),
    events: toLog(reply[3]),
  }
}

function toLog(reply: unknown): LogProgress {
  const [entries, added, lastId, deliveredId, waitingId, unfinished] = replyArray(reply)
  const addedCount = replyNumber(added)
  const waiting = replyText(waitingId)
  return {
    entries: replyNumber(entries),
    unfinished: replyNumber(unfinished),
    added: addedCount < 0 ? undefined : addedCount,
    lastId: replyText(lastId),
    deliveredId: replyText(deliveredId),
    waitingId: waiting === '' ? undefined : waiting,
  }
}

/** How long the oldest entry has waited for a worker, by the server's clock; 0 when none waits. */
export function waitedMs({ serverMs, commands, ready }: PartitionProgress): number {
  const since = [commands.waitingId, ready.waitingId].map((id) =>
    id === undefined ? serverMs : Number(id.split('-', 1)[0]),
  )
  return Math.max(0, serverMs - Math.min(...since))
}
