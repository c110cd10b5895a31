/**
 * Leases of an ordered stream's partitions. The script that takes one fences whoever had it (`lua/take-partition.lua`);
 * whether an owner is dead is judged elsewhere, and compared there once more.
 */
import { isNothing, replyArray, replyBuffer, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import type { Trail } from './entry-codec.ts'
import type { PartitionKeys } from './keys.ts'
import type { Membership } from './membership.ts'
import { unpackPayload } from './payload-codec.ts'

export interface PartitionLease {
  readonly partition: number
  /** '' when nobody has it. */
  readonly owner: string
  /** '' before anybody had it. */
  readonly epoch: string
  /** Who asks for it; '' when nobody does. */
  readonly wanted: string
}

export interface LeaseSample {
  /** Heartbeat of each member of the stream. */
  readonly beats: ReadonlyMap<string, string>
  readonly leases: readonly PartitionLease[]
}

/** Members beat in one place for the whole stream: with its first partition. */
export function membersKey(partitions: readonly PartitionKeys[]): string {
  return partitions[0]?.beats ?? ''
}

/** How the heartbeat of a member ends that takes no more partitions: its share is for the others. */
const LEAVING = ':leaving'

export function leavingBeat(beat: string): string {
  return beat + LEAVING
}

export function isLeaving(beat: string): boolean {
  return beat.endsWith(LEAVING)
}

export async function sampleLeases(
  link: RedisLink,
  partitions: readonly PartitionKeys[],
): Promise<LeaseSample> {
  const keys = [membersKey(partitions), ...partitions.map(({ lease }) => lease)]
  const [flat, rows] = replyArray(await link.run('sample-leases', keys, []))
  const texts = replyArray(flat).map(replyText)
  const beats = new Map<string, string>()
  for (let i = 0; i + 1 < texts.length; i += 2) beats.set(texts[i] ?? '', texts[i + 1] ?? '')
  const leases = replyArray(rows).map((row, i) => {
    const [owner, epoch, wanted] = replyArray(row).map(replyText)
    return {
      partition: partitions[i]?.partition ?? i,
      owner: owner ?? '',
      epoch: epoch ?? '',
      wanted: wanted ?? '',
    }
  })
  return { beats, leases }
}

export interface TakenPartition {
  readonly epoch: number
  /** `lost`: its group had vanished, an alarm. */
  readonly state: 'kept' | 'new' | 'lost'
  readonly serverMs: number
  /** The dead owner whose suspects are to be charged; '' after a clean hand-over. */
  readonly charge: string
  /** Pending entries whose bodies are gone: loss. */
  readonly gone: readonly string[]
}

/**
 * Undefined when the lease or its owner's heartbeat is no longer what was seen. `wasLeased`: this process has seen a lease of the
 * partition before, so one that is not there now is lost.
 */
export async function takePartition(
  link: RedisLink,
  keys: PartitionKeys,
  members: string,
  me: string,
  seen: PartitionLease & { readonly beat: string },
  wasLeased = false,
): Promise<TakenPartition | undefined> {
  const reply = await link.run(
    'take-partition',
    [keys.commands, keys.lease, members, keys.floors, keys.records, keys.recordTimes, keys.held],
    [me, seen.owner, seen.epoch, seen.beat, wasLeased ? '1' : ''],
  )
  if (isNothing(reply)) return undefined
  const [epoch, state, serverMs, charge, gone] = replyArray(reply)
  return {
    epoch: Number(replyText(epoch)),
    state: replyText(state) as TakenPartition['state'],
    serverMs: Number(replyText(serverMs)),
    charge: replyText(charge),
    gone: replyArray(gone).map(replyText),
  }
}

/** False when the lease is no longer what was seen. */
export async function askPartition(
  link: RedisLink,
  keys: PartitionKeys,
  me: string,
  seen: PartitionLease,
): Promise<boolean> {
  const reply = await link.run('ask-partition', [keys.lease], [me, seen.owner, seen.epoch, seen.wanted])
  return replyNumber(reply) === 1
}

/** False when it was no longer ours. */
export async function releasePartition(
  link: RedisLink,
  { keys, consumer, epoch }: Membership,
): Promise<boolean> {
  const reply = await link.run('release-partition', [keys.lease], [consumer, epoch ?? ''])
  return replyNumber(reply) === 1
}

/** True while the lease is under this epoch. */
export async function holdsLease(link: RedisLink, { keys, consumer, epoch }: Membership): Promise<boolean> {
  const [owner, current] = await link.use('a lease', (client) => client.hmget(keys.lease, 'owner', 'epoch'))
  return owner === consumer && Number(current) === epoch
}

/** What a command that is retried in place has been through. */
export interface HeldCommand {
  readonly dueMs: number
  readonly turn: number
  readonly trail: Trail
}

/** By entry id. */
export async function readHeld(link: RedisLink, keys: PartitionKeys): Promise<Map<string, HeldCommand>> {
  const flat = replyArray(
    await link.use('commands that are retried in place', (client) =>
      client.callBuffer('HGETALL', [keys.held]),
    ),
  )
  const held = new Map<string, HeldCommand>()
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const bytes = replyBuffer(flat[i + 1])
    const first = bytes.indexOf(':')
    const second = bytes.indexOf(':', first + 1)
    held.set(replyText(flat[i]), {
      dueMs: Number(bytes.toString('latin1', 0, first)),
      turn: Number(bytes.toString('latin1', first + 1, second)),
      trail: unpackPayload(bytes.subarray(second + 1)) as Trail,
    })
  }
  return held
}

/** Tokens that a worker had marked as running when it died. */
export async function readMarks(
  link: RedisLink,
  keys: PartitionKeys,
  consumer: string,
): Promise<Set<string>> {
  const tokens = await link.use('marks of suspects', (client) => client.smembers(keys.running(consumer)))
  return new Set(tokens)
}

/** Writes crash levels, once. False when the partition is no longer ours. */
export async function chargeSuspects(
  link: RedisLink,
  { keys, epoch }: Membership,
  dead: string,
  levels: ReadonlyMap<string, number>,
): Promise<boolean> {
  const args = [epoch ?? '', dead, ...[...levels].flat()]
  const reply = await link.run('charge-suspects', [keys.lease, keys.crashes, keys.running(dead)], args)
  return replyNumber(reply) === 1
}

/** Removes a silent member; false when its heartbeat moved. */
export async function forgetMember(
  link: RedisLink,
  members: string,
  member: string,
  beat: string,
): Promise<boolean> {
  return replyNumber(await link.run('forget-member', [members], [member, beat])) === 1
}

/** Takes the own heartbeat away, after the last lease was given back. */
export async function leaveStream(link: RedisLink, members: string, me: string): Promise<void> {
  await link.use('HDEL of the own heartbeat', (client) => client.hdel(members, me))
}
