/**
 * Reads event logs for those who follow them without a checkpoint of their own in Redis: one page of one log, with what became
 * of the entries before it; and what is new in many logs at once, by one blocking read.
 */
import { isNothing, replyArray, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { type EventChunk, readChunk } from './event-log.ts'
import type { PartitionKeys } from './keys.ts'

/**
 * `trimmed`: entries after the position are gone, or may be; `lost`: the entry at the position is gone and was not trimmed, so
 * the server lost the end of its log.
 */
export type LogState = 'known' | 'trimmed' | 'lost'

export interface EventPage {
  readonly state: LogState
  /** The last id that the log gave out; '' when the page has entries and its state is known. */
  readonly last: string
  /** `last` is an entry that lies in the log. */
  readonly isLastEntry: boolean
  /** Undefined when there are no entries. */
  readonly chunk: EventChunk | undefined
  /** No entries came after these when the page was read. */
  readonly isLast: boolean
}

export interface PageRequest {
  readonly id: string
  /** The page begins with the entry `id` itself, not with the one after it. */
  readonly inclusive: boolean
  /** 0: only where the log ends is asked for. */
  readonly entriesMax: number
}

/** @throws MillraceError `redis.unavailable`, `redis.unknown` */
export async function readEventPage(
  link: RedisLink,
  keys: PartitionKeys,
  { id, inclusive, entriesMax }: PageRequest,
): Promise<EventPage> {
  const args = [id, inclusive ? '1' : '0', entriesMax]
  const reply = replyArray(await link.run('read-events', [keys.events, keys.floors], args))
  const entries = replyArray(reply[2])
  const chunk = readChunk(id, entries)
  if (chunk !== undefined) link.marks.note(keys, 'events', chunk.last)
  return {
    state: replyText(reply[0]) as LogState,
    last: replyText(reply[1]),
    isLastEntry: replyText(reply[3]) === '1',
    chunk,
    isLast: entries.length < entriesMax,
  }
}

/** A log and the entry after which it is read. */
export interface LogPlace {
  readonly keys: PartitionKeys
  readonly after: string
}

/**
 * What came after these places, at most `entriesMax` from each log; empty when nothing did for `blockMs`. Blocks the connection.
 *
 * @throws MillraceError `redis.unavailable`, `redis.unknown`
 */
export async function readNewEvents(
  reader: RedisLink,
  places: readonly LogPlace[],
  { entriesMax, blockMs }: { readonly entriesMax: number; readonly blockMs: number },
): Promise<ReadonlyMap<LogPlace, EventChunk>> {
  const found = new Map<LogPlace, EventChunk>()
  const logs = places.map(({ keys }) => keys.events)
  const ids = places.map(({ after }) => after)
  const reply = await reader.use('new events', (client) =>
    client.xreadBuffer('COUNT', entriesMax, 'BLOCK', blockMs, 'STREAMS', ...logs, ...ids),
  )
  if (isNothing(reply)) return found
  const byLog = new Map(places.map((place) => [place.keys.events, place]))
  for (const item of replyArray(reply)) {
    const [log, entries] = replyArray(item)
    const place = byLog.get(replyText(log))
    const chunk = place === undefined ? undefined : readChunk(place.after, replyArray(entries))
    if (place === undefined || chunk === undefined) continue
    reader.marks.note(place.keys, 'events', chunk.last)
    found.set(place, chunk)
  }
  return found
}
