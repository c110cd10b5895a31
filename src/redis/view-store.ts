/**
 * Views and checkpoints of one projection version in one partition, and the channel that tells of their commits.
 *
 *   checkpoint  the last event entry read; moves only in the script that writes the view changes it stands for
 *   views       hash, view key → msgpack, with a zset of the keys in lexical order beside it
 *
 * Keys are given as `policies/scoped-key.ts` has them, and stored as `view-keys.ts` says.
 *
 *   stop        why the projection can't go on, until somebody's next commit
 */
import { MillraceError } from '../contracts/errors.ts'
import { isNothing, replyArray, replyBuffer, replyNumber, replyText, replyUtf8 } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import type { PartitionKeys } from './keys.ts'
import { packPayload, unpackPayload } from './payload-codec.ts'
import { packLists } from './script-lists.ts'
import { keyFromStored, storedKey } from './view-keys.ts'

/** How a projection version is called in Redis. */
export function readerName(projection: { readonly name: string; readonly version: number }): string {
  return `${projection.name}@${projection.version}`
}

/** `trimmed`: new, but earlier events are gone. `gap`: events after the checkpoint are gone. `behind`: the log lost its end. */
export type ReaderState = 'known' | 'new' | 'trimmed' | 'gap' | 'behind'

export interface OpenedReader {
  readonly checkpoint: string
  readonly state: ReaderState
  /** Last entry id that the log ever gave out. */
  readonly lastEventId: string
  /** Up to where events were trimmed, or ''. */
  readonly floor: string
}

/** Registers the reader when it is new, so that trimming waits for it, and tells where it stands. */
export async function openReader(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
): Promise<OpenedReader> {
  const reply = replyArray(await link.run('open-reader', [keys.readers, keys.events, keys.floors], [reader]))
  return {
    checkpoint: replyText(reply[0]),
    state: replyText(reply[1]) as ReaderState,
    lastEventId: replyText(reply[2]),
    floor: replyText(reply[3]),
  }
}

export interface SkippedEvent {
  /** `<entry id>/<index>` */
  readonly position: string
  readonly error: string
  readonly blob: Buffer
}

export interface ViewChanges {
  readonly written: readonly { readonly key: string; readonly blob: Buffer; readonly isNew: boolean }[]
  readonly deleted: readonly string[]
  readonly skipped: readonly SkippedEvent[]
}

export interface ViewCommit {
  readonly reader: string
  /** What the batch was folded from. */
  readonly expected: string
  readonly checkpoint: string
  readonly changes: ViewChanges
}

const SKIPPED_MAX = 10_000
/** A commit that touches more keys than this announces "all". */
const ANNOUNCED_KEYS_MAX = 256

/** True when it was committed; false when the checkpoint is not the expected one, and nothing was written. */
export async function commitViews(
  link: RedisLink,
  keys: PartitionKeys,
  commit: ViewCommit,
): Promise<boolean> {
  const { reader, expected, checkpoint, changes } = commit
  const { written, deleted } = changes
  const touched = written.length + deleted.length
  const names = touched > ANNOUNCED_KEYS_MAX ? undefined : [...written.map(({ key }) => key), ...deleted]
  const announcement = packPayload([expected, checkpoint, names?.map(storedKey) ?? null])
  const args = [reader, expected, checkpoint, keys.commits(reader), announcement, SKIPPED_MAX]
  args.push(packChanges(changes))
  const scriptKeys = [
    keys.readers,
    keys.views(reader),
    keys.viewKeys(reader),
    keys.stops,
    keys.skipped(reader),
  ]
  return replyNumber(await link.run('commit-views', scriptKeys, args)) === 1
}

/**
 * One argument instead of two for each view: neither side has to frame them one by one.
 */
function packChanges({ written, deleted, skipped }: ViewChanges): Buffer {
  const pairs: (string | Buffer)[] = []
  const created: (string | Buffer)[] = []
  for (const { key, blob, isNew } of written) {
    const stored = storedKey(key)
    pairs.push(stored, blob)
    if (isNew) created.push(stored)
  }
  const records = skipped.flatMap(({ position, error, blob }) => [position, error, blob])
  return packLists([pairs, created, deleted.map(storedKey), records])
}

export interface ReaderStop {
  readonly position: string
  readonly error: string
  readonly atMs: number
}

/** Records why a projection stands still; false when somebody else has gone on meanwhile. */
export async function stopReader(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
  checkpoint: string,
  stop: ReaderStop,
): Promise<boolean> {
  const announcement = packPayload([checkpoint, checkpoint, []])
  const args = [reader, checkpoint, packPayload(stop), keys.commits(reader), announcement]
  return replyNumber(await link.run('stop-reader', [keys.readers, keys.stops], args)) === 1
}

/** What a commit, or a stop, tells: the views that changed between two checkpoints. */
export interface CommitNotice {
  readonly previous: string
  readonly checkpoint: string
  /** Undefined: too many to name. */
  readonly keys: readonly string[] | undefined
}

/** Undefined for bytes that are no notice. */
export function readCommitNotice(bytes: Buffer): CommitNotice | undefined {
  try {
    const notice = unpackPayload(bytes)
    if (!Array.isArray(notice)) return undefined
    const [previous, checkpoint, keys]: unknown[] = notice
    if (typeof previous !== 'string' || typeof checkpoint !== 'string') return undefined
    return { previous, checkpoint, keys: Array.isArray(keys) ? keys.map(toKey) : undefined }
  } catch {
    return undefined
  }
}

function toKey(announced: unknown): string {
  return announced instanceof Uint8Array ? keyFromStored(announced) : String(announced)
}

const READ_KEYS_MAX = 1000

/** The stored views of `viewKeys`, in order; for the projector, which knows its checkpoint. */
export async function loadViews(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
  viewKeys: readonly string[],
): Promise<(Buffer | undefined)[]> {
  const parts: (string | Buffer)[][] = []
  for (let at = 0; at < viewKeys.length; at += READ_KEYS_MAX)
    parts.push(viewKeys.slice(at, at + READ_KEYS_MAX).map(storedKey))
  const replies = await Promise.all(
    parts.map((part) => link.use('views', (client) => client.hmgetBuffer(keys.views(reader), ...part))),
  )
  return replies.flat().map((blob) => blob ?? undefined)
}

export interface StoredViews {
  /** '0-0' when the projection never ran here. */
  readonly checkpoint: string
  readonly stop: ReaderStop | undefined
  /** msgpack of each key asked for, in order. */
  readonly blobs: readonly (Buffer | undefined)[]
}

/** Reads at most 1 000 views together with the checkpoint they belong to. */
export async function readViews(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
  viewKeys: readonly string[],
): Promise<StoredViews> {
  if (viewKeys.length > READ_KEYS_MAX) {
    throw new MillraceError('command.malformed', `At most ${READ_KEYS_MAX} views are read at once.`)
  }
  const scriptKeys = [keys.readers, keys.views(reader), keys.stops]
  const reply = replyArray(await link.run('read-views', scriptKeys, [reader, ...viewKeys.map(storedKey)]))
  const stop = replyBuffer(reply[1])
  return {
    checkpoint: replyText(reply[0]) || '0-0',
    stop: stop.length === 0 ? undefined : (unpackPayload(stop) as ReaderStop),
    blobs: reply.slice(2).map((blob) => (isNothing(blob) ? undefined : replyBuffer(blob))),
  }
}

/** A stretch of the keys of one partition, in byte order. */
export interface KeyRange {
  /** Only keys that start with this; where it is of a tenant, only that tenant's. */
  readonly prefix: string
  /** Only keys beyond this one, in the direction of the walk. */
  readonly beyond: string | undefined
  readonly direction: 'forward' | 'backward'
  readonly countMax: number
}

const BEHIND_TEXT: Buffer = Buffer.from([0xff])

function bound(kind: '(' | '[', key: string, ...rest: readonly Buffer[]): Buffer {
  const stored = storedKey(key)
  return Buffer.concat([
    Buffer.from(kind),
    typeof stored === 'string' ? Buffer.from(stored) : stored,
    ...rest,
  ])
}

/** Keys of stored views in lexical order of their bytes, along the direction of the walk. */
export async function pageViewKeys(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
  range: KeyRange,
): Promise<Buffer[]> {
  const { prefix, beyond, direction, countMax } = range
  // No UTF-8 text holds the byte 0xff, so it stands behind every key with the prefix, and before every one of a tenant.
  const end = bound('(', prefix, BEHIND_TEXT)
  const start = bound('[', prefix)
  const exclusive = beyond === undefined ? undefined : bound('(', beyond)
  return await link.use('a page of views', async (client) => {
    const index = keys.viewKeys(reader)
    return direction === 'forward'
      ? await client.zrangebylexBuffer(index, exclusive ?? start, end, 'LIMIT', 0, countMax)
      : await client.zrevrangebylexBuffer(index, exclusive ?? end, start, 'LIMIT', 0, countMax)
  })
}

/** Events that `skip-and-record` set aside, oldest first. */
export async function readSkipped(
  link: RedisLink,
  keys: PartitionKeys,
  reader: string,
  countMax: number,
): Promise<SkippedEvent[]> {
  const reply = await link.use('skipped events', (client) =>
    client.xrangeBuffer(keys.skipped(reader), '-', '+', 'COUNT', countMax),
  )
  return reply.map(([, fields]) => ({
    position: replyText(fields[1]),
    error: replyUtf8(fields[3]),
    blob: replyBuffer(fields[5]),
  }))
}
