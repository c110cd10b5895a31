/**
 * The consumer group of one partition: reading, re-reading the own pending list, watching the others, taking over from the
 * dead, handing back when draining.
 */
import type { Redis } from 'ioredis'
import { isNothing, replyArray, replyBuffer, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { FREE_CONSUMER, GROUP, type PartitionKeys } from './keys.ts'
import type { Membership } from './membership.ts'
import type { Source } from './settlements.ts'

/** An entry as read; `blob` is absent when the pending entry's body is gone. */
export interface ReadEntry {
  readonly source: Source
  readonly entryId: string
  readonly token: string
  /** False: its place is its token. Absent when nobody looked. */
  readonly isNamed?: boolean
  readonly blob: Buffer | undefined
  readonly level: number
}

/** Creates what is missing; `seen` tells that it was there before. `lost` means that a group had vanished: an alarm. */
export async function ensureGroup(
  link: RedisLink,
  keys: PartitionKeys,
  seen = false,
): Promise<'present' | 'new' | 'lost'> {
  const args = [GROUP, seen ? '1' : '0']
  const reply = replyText(await link.run('ensure-group', [keys.commands, keys.ready, keys.floors], args))
  return reply === 'new' || reply === 'lost' ? reply : 'present'
}

/**
 * Waits up to `blockMs` for new entries; retries and other ready commands come first. Answers at most `countMax` entries
 * of each of the two streams.
 */
export async function readNew(
  reader: RedisLink,
  { keys, group, consumer }: Membership,
  countMax: number,
  blockMs: number,
): Promise<ReadEntry[]> {
  const reply = await reader.use('XREADGROUP', (client: Redis) =>
    keys.ready === keys.commands
      ? client.xreadgroupBuffer(
          ...(['GROUP', group, consumer, 'COUNT', countMax, 'BLOCK', blockMs] as const),
          ...(['STREAMS', keys.commands, '>'] as const),
        )
      : client.xreadgroupBuffer(
          ...(['GROUP', group, consumer, 'COUNT', countMax, 'BLOCK', blockMs] as const),
          ...(['STREAMS', keys.ready, keys.commands, '>', '>'] as const),
        ),
  )
  return isNothing(reply) ? [] : noted(reader, keys, readEntries(reply, keys))
}

/** Entries of one read come in order, those of `ready` first. */
function noted(reader: RedisLink, keys: PartitionKeys, entries: ReadEntry[]): ReadEntry[] {
  for (const source of ['ready', 'commands'] as const) {
    const newest = entries.findLast((entry) => entry.source === source)
    if (newest !== undefined) reader.marks.note(keys, source, newest.entryId)
  }
  return entries
}

/** One page of the consumer's own pending ids in one stream, from after `afterId` ('' the first). */
export async function listOwnPending(
  reader: RedisLink,
  { keys, group, consumer }: Membership,
  source: Source,
  afterId: string,
  countMax: number,
): Promise<string[]> {
  const key = source === 'commands' ? keys.commands : keys.ready
  const from = afterId === '' ? '-' : `(${afterId}`
  const reply = await reader.use('XPENDING of the own entries', (client) =>
    client.xpending(key, group, from, '+', countMax, consumer),
  )
  return replyArray(reply).map((row) => replyText(replyArray(row)[0]))
}

/** Pending entries by their ids; bodies that are gone come without blob. */
export async function readPending(
  reader: RedisLink,
  keys: PartitionKeys,
  source: Source,
  ids: readonly string[],
): Promise<ReadEntry[]> {
  const key = source === 'commands' ? keys.commands : keys.ready
  const replies = await reader.use('pending entries', (client) =>
    Promise.all(ids.map((id) => client.xrangeBuffer(key, id, id))),
  )
  const rows = replies.map((reply, i) => reply[0] ?? [ids[i], null])
  return readEntries([[key, rows]], keys)
}

function readEntries(reply: unknown, keys: PartitionKeys): ReadEntry[] {
  const entries: ReadEntry[] = []
  for (const pair of replyArray(reply)) {
    const [key, rows] = replyArray(pair)
    const source: Source = replyText(key) === keys.commands ? 'commands' : 'ready'
    for (const row of replyArray(rows)) {
      const [id, fields] = replyArray(row)
      const entryId = replyText(id)
      const list = isNothing(fields) ? [] : replyArray(fields)
      const [field, body] = list
      const isNamed = !isDash(field)
      entries.push({
        source,
        entryId,
        token: isNamed ? nameOf(source, entryId, field) : `e${entryId}`,
        isNamed,
        blob: isNothing(body) ? undefined : replyBuffer(body),
        level: 0,
      })
    }
  }
  return entries
}

const DASH = 0x2d

/** The field of an entry is its token, or `-` where the entry id tells it: one byte is compared, and no text is made of it. */
function isDash(field: unknown): boolean {
  return Buffer.isBuffer(field) && field.length === 1 && field[0] === DASH
}

/** Of an entry whose body is gone there is no field either. */
function nameOf(source: Source, entryId: string, field: unknown): string {
  const name = isNothing(field) ? '' : replyText(field)
  return name === '-' || (name === '' && source === 'commands') ? `e${entryId}` : name
}

/** Crash levels of these tokens, in order. */
export async function readLevels(
  link: RedisLink,
  keys: PartitionKeys,
  tokens: readonly string[],
): Promise<number[]> {
  if (tokens.length === 0) return []
  const reply = await link.use('crash levels', (client) => client.hmget(keys.crashes, ...tokens))
  return reply.map((level) => (level === null ? 0 : Number(level)))
}

/** Acknowledges pending entries whose bodies are gone, once they have been reported. */
export async function forgetGone(
  link: RedisLink,
  { keys, group }: Membership,
  source: Source,
  ids: readonly string[],
): Promise<void> {
  const key = source === 'commands' ? keys.commands : keys.ready
  const isCommands = source === 'commands' ? '1' : '0'
  await link.run('forget-gone', [key, keys.records, keys.recordTimes, keys.held], [group, isCommands, ...ids])
}

export interface ConsumerView {
  readonly consumer: string
  readonly pending: number
  /** '' when it has none. */
  readonly beat: string
}

/** Every consumer of the partition, in one look. */
export async function sampleConsumers(link: RedisLink, keys: PartitionKeys): Promise<ConsumerView[]> {
  const reply = await link.run('sample', [keys.commands, keys.ready, keys.beats], [GROUP])
  return replyArray(reply).map((row) => {
    const [name, commands, ready, beat] = replyArray(row)
    return {
      consumer: replyText(name),
      pending: replyNumber(commands) + replyNumber(ready),
      beat: replyText(beat),
    }
  })
}

export interface Takeover {
  readonly entries: readonly ReadEntry[]
  /** Pending ids whose entry no longer exists. */
  readonly gone: readonly string[]
}

/** Claims entries of `from`, unless its heartbeat moved; undefined then. Entries of the free consumer are not charged. */
export async function takeOver(
  link: RedisLink,
  keys: PartitionKeys,
  from: { readonly consumer: string; readonly beat: string },
  me: string,
  countMax: number,
): Promise<Takeover | undefined> {
  const charge = from.consumer === FREE_CONSUMER ? '0' : '1'
  const reply = await link.run(
    'takeover',
    [
      ...[keys.commands, keys.ready, keys.beats, keys.crashes, keys.running(from.consumer)],
      ...[keys.records, keys.recordTimes],
    ],
    [GROUP, from.consumer, me, from.beat, countMax, charge],
  )
  if (isNothing(reply)) return undefined
  const [claimed, gone] = replyArray(reply)
  return {
    entries: replyArray(claimed).map((row) => {
      const [source, id, token, blob, level] = replyArray(row)
      return {
        source: replyNumber(source) === 1 ? 'commands' : 'ready',
        entryId: replyText(id),
        token: replyText(token),
        blob: replyBuffer(blob),
        level: replyNumber(level),
      }
    }),
    gone: replyArray(gone).map(replyText),
  }
}

/** Hands entries back to the fleet, uncharged; `leaving` drops the own heartbeat too. */
export async function releaseEntries(
  link: RedisLink,
  keys: PartitionKeys,
  me: string,
  entries: readonly { readonly source: Source; readonly entryId: string }[],
  leaving: boolean,
): Promise<number> {
  const commands = entries.filter((entry) => entry.source === 'commands').map((entry) => entry.entryId)
  const ready = entries.filter((entry) => entry.source === 'ready').map((entry) => entry.entryId)
  const reply = await link.run(
    'release',
    [keys.commands, keys.ready, keys.beats],
    [GROUP, me, FREE_CONSUMER, leaving ? '1' : '0', commands.length, ...commands, ready.length, ...ready],
  )
  return replyNumber(reply)
}

/** Removes a consumer that holds nothing and has not moved. */
export async function removeConsumer(
  link: RedisLink,
  keys: PartitionKeys,
  consumer: string,
  beat: string,
): Promise<boolean> {
  const reply = await link.run(
    'remove-consumer',
    [keys.commands, keys.ready, keys.beats, keys.running(consumer)],
    [GROUP, consumer, beat],
  )
  return replyNumber(reply) === 1
}

/** Marks the suspects that are about to run, in place of any earlier mark. */
export async function markRunning(
  link: RedisLink,
  keys: PartitionKeys,
  consumer: string,
  tokens: readonly string[],
): Promise<void> {
  await link.run('mark-running', [keys.running(consumer)], tokens)
}

export async function clearRunning(link: RedisLink, keys: PartitionKeys, consumer: string): Promise<void> {
  await link.use('the mark of a suspect group', (client) => client.del(keys.running(consumer)))
}

export async function writeBeat(
  link: RedisLink,
  beatKeys: readonly string[],
  consumer: string,
  value: string,
): Promise<void> {
  await link.run('beat', beatKeys, [consumer, value])
}

/** How a server knows a connection. A server that was started again counts from one, so an id alone may be another's. */
export interface ConnectionIdentity {
  readonly id: number
  /** Of this run of the server. */
  readonly runId: string
}

export async function identifyConnection(link: RedisLink): Promise<ConnectionIdentity> {
  const [id, info] = await link.use('CLIENT ID and INFO', (client) =>
    Promise.all([client.client('ID'), client.info('server')]),
  )
  return { id: replyNumber(id), runId: /^run_id:(\w+)/m.exec(info)?.[1] ?? '' }
}

/** Ends a connection that the server may still be serving; one that is gone already is fine. */
export async function killConnection(link: RedisLink, id: number): Promise<void> {
  await link
    .use('CLIENT KILL', (client) => client.client('KILL', 'ID', id))
    .catch((error: unknown) => {
      if (!(error instanceof Error && error.message.includes('No such client'))) throw error
    })
}

/** Makes a blocked read answer at once. */
export async function unblock(link: RedisLink, id: number): Promise<void> {
  await link.use('CLIENT UNBLOCK', (client) => client.client('UNBLOCK', id))
}
