/**
 * The events of one partition, read in order from any checkpoint. No consumer group: a reader's checkpoint is its own.
 *
 * One reading serves every projection of the process. The last few chunks stay at hand, so projections that stand at the
 * same place share the round trip and the decoding of headers; one that lags behind reads its chunks apart. At the end of
 * the log a blocking read waits on the reader connection, and while one chunk is folded the next is already being read.
 *
 *   next(after) ── in the ring ─────────────▶ that chunk, from the entry after `after`
 *               ── at the newest, or beyond ─▶ XREAD BLOCK (reader connection), shared by everyone who waits
 *               ── behind it ────────────────▶ XRANGE (command connection)
 */
import type { MillraceError } from '../contracts/errors.ts'
import type { RecordedEvent } from '../contracts/event.ts'
import type { Tenant } from '../contracts/tenant.ts'
import { compareEntryIds, isNothing, replyArray, replyBuffer, replyText } from './bytes.ts'
import type { CommandIds } from './command-id.ts'
import type { RedisLink } from './connection.ts'
import { decodeEntry, type Entry, unpackPayloadOf } from './entry-codec.ts'
import type { PartitionKeys } from './keys.ts'

/** One event as it lies in the log. Its payload is not decoded yet. */
export interface LoggedEvent {
  readonly blob: Buffer
  /** Token of the command that caused it, latin1; text when a fold asks for the command's id. */
  readonly token: Buffer
  /** Undefined when this version can't read its header; `fault` says why. */
  readonly header: Entry | undefined
  readonly fault: MillraceError | undefined
}

/** What one settlement logged. */
export interface LoggedEntry {
  readonly id: string
  readonly events: readonly LoggedEvent[]
}

export interface EventChunk {
  /** The entry id that was read from; the first entry is the next one after it. */
  readonly after: string
  readonly last: string
  readonly entries: readonly LoggedEntry[]
  readonly events: number
  readonly bytes: number
}

/** A chunk and the index of the first entry that the asker has not read. */
export interface ChunkPosition {
  readonly chunk: EventChunk
  readonly from: number
}

export interface EventLogOptions {
  /** Own connection, for blocking reads. */
  readonly reader: RedisLink
  /** Shared connection, for readers that lag behind. */
  readonly command: RedisLink
  readonly keys: PartitionKeys
  readonly blockMs: number
  /** Ends waiting for a connection. */
  readonly signal: AbortSignal
}

/** A chunk holds about this much; an entry is never cut, and its size is known only once it is read. */
const CHUNK_EVENTS = 4000
const CHUNK_BYTES = 1024 * 1024
const ENTRIES_FIRST = 8
const ENTRIES_MAX = 256
const RING_CHUNKS = 4
const CONNECT_WAIT_MS = 2000

interface Tail {
  readonly done: Promise<void>
}

export class EventLog implements Disposable {
  readonly #options: EventLogOptions
  readonly #ring: EventChunk[] = []
  readonly #earlier = new Map<string, Promise<EventChunk | undefined>>()
  readonly #onClose = () => {
    this.#incarnation += 1
    this.#ring.length = 0
    this.#newest = undefined
  }
  /** Where the tail is read from; everything up to here was read, or skipped by who asked. */
  #newest: string | undefined
  #tail: Tail | undefined
  #entryCount = ENTRIES_FIRST
  #incarnation = 0

  constructor(options: EventLogOptions) {
    this.#options = options
    // Every partition listens on the shared connection; more than ten is no leak.
    options.command.client.setMaxListeners(0)
    for (const link of [options.reader, options.command]) link.client.on('close', this.#onClose)
  }

  /**
   * Changes when a connection was lost: the server may have restarted without the newest entries, so what was read
   * before must not be committed any more.
   */
  get incarnation(): number {
    return this.#incarnation
  }

  [Symbol.dispose](): void {
    for (const link of [this.#options.reader, this.#options.command]) link.client.off('close', this.#onClose)
  }

  /**
   * The chunk that goes on after `after`, or undefined when nothing came for the length of one block.
   *
   * @throws MillraceError `redis.unavailable`, `redis.unknown`
   */
  async next(after: string): Promise<ChunkPosition | undefined> {
    for (let waited = false; ; waited = true) {
      const known = this.#known(after)
      if (known !== undefined) return known
      const newest = this.#newest ?? after
      const lags = compareEntryIds(after, newest) < 0
      const chunk = lags ? await this.#readEarlier(after) : undefined
      if (chunk !== undefined) return { chunk, from: 0 }
      if (this.#tail === undefined && waited) return undefined
      await (this.#tail ?? this.#startTail(lags ? newest : after)).done
    }
  }

  #known(after: string): ChunkPosition | undefined {
    const chunk = this.#ring.find((each) => covers(each, after))
    if (chunk === undefined) return undefined
    if (chunk.last === this.#newest && this.#tail === undefined) this.#readAhead(chunk.last)
    if (after === chunk.after) return { chunk, from: 0 }
    return { chunk, from: chunk.entries.findIndex(({ id }) => compareEntryIds(id, after) > 0) }
  }

  #readAhead(after: string): void {
    // Whoever asks next meets the same fault again, and reports it.
    this.#startTail(after).done.catch(() => undefined)
  }

  #startTail(after: string): Tail {
    this.#newest = after
    const done = this.#readTail(after).finally(() => {
      this.#tail = undefined
    })
    this.#tail = { done }
    return this.#tail
  }

  async #readTail(after: string): Promise<void> {
    const { reader, keys, blockMs, signal } = this.#options
    await reader.whenReady(CONNECT_WAIT_MS, signal)
    const reply = await reader.use('new events', (client) =>
      client.xreadBuffer('COUNT', this.#entryCount, 'BLOCK', blockMs, 'STREAMS', keys.events, after),
    )
    if (isNothing(reply)) return
    const chunk = this.#keep(after, replyArray(replyArray(replyArray(reply)[0])[1]))
    if (chunk !== undefined) this.#newest = chunk.last
  }

  #readEarlier(after: string): Promise<EventChunk | undefined> {
    const known = this.#earlier.get(after)
    if (known !== undefined) return known
    const { command, keys } = this.#options
    const reading = command
      .use('earlier events', (client) =>
        client.xrangeBuffer(keys.events, `(${after}`, '+', 'COUNT', this.#entryCount),
      )
      .then((reply) => this.#keep(after, reply))
      .finally(() => this.#earlier.delete(after))
    this.#earlier.set(after, reading)
    return reading
  }

  #keep(after: string, reply: readonly unknown[]): EventChunk | undefined {
    const chunk = readChunk(after, reply)
    if (chunk === undefined) return undefined
    this.#options.command.marks.note(this.#options.keys, 'events', chunk.last)
    this.#ring.push(chunk)
    if (this.#ring.length > RING_CHUNKS) this.#ring.shift()
    const share = Math.max(chunk.events / CHUNK_EVENTS, chunk.bytes / CHUNK_BYTES) / chunk.entries.length
    const fitting = Math.floor(1 / Math.max(share, 1 / ENTRIES_MAX))
    this.#entryCount = Math.max(1, Math.min(fitting, this.#entryCount * 2))
    return chunk
  }
}

function covers(chunk: EventChunk, after: string): boolean {
  if (chunk.after === after) return true
  return compareEntryIds(chunk.after, after) < 0 && compareEntryIds(after, chunk.last) < 0
}

/** From what Redis replied; undefined when it has no entries. */
export function readChunk(after: string, reply: readonly unknown[]): EventChunk | undefined {
  const entries: LoggedEntry[] = []
  let events = 0
  let bytes = 0
  for (const item of reply) {
    const pair = replyArray(item)
    const fields = isNothing(pair[1]) ? [] : replyArray(pair[1])
    const logged: LoggedEvent[] = []
    for (let i = 0; i + 1 < fields.length; i += 2) {
      const blob = replyBuffer(fields[i + 1])
      logged.push(readEvent(replyBuffer(fields[i]), blob))
      bytes += blob.length
    }
    events += logged.length
    entries.push({ id: replyText(pair[0]), events: logged })
  }
  const last = entries.at(-1)
  return last === undefined ? undefined : { after, last: last.id, entries, events, bytes }
}

function readEvent(token: Buffer, blob: Buffer): LoggedEvent {
  try {
    return { blob, token, header: decodeEntry(blob), fault: undefined }
  } catch (error) {
    return { blob, token, header: undefined, fault: unreadable(error) }
  }
}

function unreadable(error: unknown): MillraceError {
  return error as MillraceError
}

/** Where events of one partition come from; shared by all of them. */
export interface EventOrigin {
  readonly ids: CommandIds
  readonly stream: string
  readonly partition: number
}

/**
 * An event as a fold sees it. Each fold of a view gets an object and a payload of its own, so that what it keeps or
 * changes is nobody else's. The command's id costs a keyed hash and is made when asked for.
 */
export class FoldedEvent implements RecordedEvent {
  readonly type: string
  readonly version: number
  readonly key: string
  readonly tenant: Tenant
  readonly atMs: number
  readonly position: string
  readonly payload: unknown
  readonly #origin: EventOrigin
  readonly #token: Buffer

  /** @throws what the payload's decoder throws */
  constructor(origin: EventOrigin, position: string, token: Buffer, header: Entry) {
    this.type = header.type
    this.version = header.version
    this.key = header.key
    this.tenant = header.tenant
    this.atMs = header.atMs
    this.position = position
    this.payload = unpackPayloadOf(header)
    this.#origin = origin
    this.#token = token
  }

  /** The same event with a payload of its own, for the fold of another view. */
  fresh(header: Entry): FoldedEvent {
    return new FoldedEvent(this.#origin, this.position, this.#token, header)
  }

  get commandId(): string {
    const { ids, stream, partition } = this.#origin
    return ids.format(stream, partition, replyText(this.#token), this.tenant)
  }

  toJSON(): RecordedEvent {
    return { ...this, commandId: this.commandId }
  }
}
