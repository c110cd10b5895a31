/**
 * The dead-letter stream of one partition: looked through by header, found by token, redriven, discarded, trimmed.
 *
 * An entry id tells when a command died, by Redis's clock. Whoever takes a dead letter away names the entry id it saw, so
 * of two only one succeeds, also when the command came back and died again in between.
 */
import type { Tenant } from '../contracts/tenant.ts'
import { isNothing, replyArray, replyBuffer, replyNumber, replyText } from './bytes.ts'
import type { CommandRecord } from './command-log.ts'
import type { RedisLink } from './connection.ts'
import type { PartitionKeys } from './keys.ts'
import { unpackPayload } from './payload-codec.ts'
import { packTenants } from './tenant-loads.ts'

/** A dead letter without its payload. */
export interface DeadEntry {
  /** In the dead-letter stream. */
  readonly entryId: string
  readonly token: string
  /** Of the entry, trail included: what `decodeEntry` reads, with an empty payload. */
  readonly head: Buffer
  readonly payloadBytes: number
}

export interface DeadRange {
  /** First and last entry id, as XRANGE takes them. */
  readonly from: string
  readonly to: string
  readonly countMax: number
  readonly newestFirst: boolean
}

export interface DeadChunk {
  readonly entries: readonly DeadEntry[]
  /** The range holds no more. */
  readonly ended: boolean
}

/** Reads at most `countMax`, and fewer where payloads are large; `ended` tells whether there is more. */
export async function readDead(
  link: RedisLink,
  keys: PartitionKeys,
  { from, to, countMax, newestFirst }: DeadRange,
): Promise<DeadChunk> {
  const args = [from, to, countMax, newestFirst ? '1' : '0']
  const [ended, rows] = replyArray(await link.run('read-dead', [keys.dead], args))
  const entries = replyArray(rows).map((row) => {
    const [entryId, token, head, payloadBytes] = replyArray(row)
    return {
      entryId: replyText(entryId),
      token: replyText(token),
      head: replyBuffer(head),
      payloadBytes: replyNumber(payloadBytes),
    }
  })
  return { entries, ended: replyNumber(ended) === 1 }
}

/** The newest entry of the stream; undefined when it is empty. */
export async function lastDeadId(link: RedisLink, keys: PartitionKeys): Promise<string | undefined> {
  const { entries } = await readDead(link, keys, { from: '-', to: '+', countMax: 1, newestFirst: true })
  return entries[0]?.entryId
}

export interface FoundDead {
  /** Absent when the command is no dead letter now. */
  readonly letter: { readonly entryId: string; readonly blob: Buffer } | undefined
  /** It is a dead letter, or was one that has been discarded, trimmed or redriven. */
  readonly wasDead: boolean
  readonly record: CommandRecord
}

export async function findDead(link: RedisLink, keys: PartitionKeys, token: string): Promise<FoundDead> {
  const reply = replyArray(await link.run('find-dead', [keys.dead, keys.records], [token]))
  const recordBytes = isNothing(reply[0]) ? Buffer.alloc(0) : replyBuffer(reply[0])
  const entryId = replyText(reply[1])
  const record = readTail(recordBytes)
  return {
    letter: entryId === '' ? undefined : { entryId, blob: replyBuffer(reply[2]) },
    wasDead: recordBytes.toString('latin1', 0, 1) === 'X' || (record.redrives ?? 0) > 0,
    record,
  }
}

/** What a side record holds behind its letter and, but for `D` and `C`, a position and a colon. */
function readTail(bytes: Buffer): CommandRecord {
  const letter = bytes.toString('latin1', 0, 1)
  const from = letter === 'D' || letter === 'C' ? 1 : bytes.indexOf(':') + 1
  if (from === 0 || from >= bytes.length) return {}
  try {
    return unpackPayload(bytes.subarray(from)) as CommandRecord
  } catch {
    return {}
  }
}

export interface DeadRef {
  readonly token: string
  readonly entryId: string
}

export interface Redrive extends DeadRef {
  /** Whose command it is. Absent: nobody's. */
  readonly tenant?: Tenant
  /** The head of the entry, or all of it. */
  readonly bytes: Buffer
  /** How many bytes of the stored entry `bytes` replaces; undefined: all of them. */
  readonly replacesBytes: number | undefined
  /** Side record of the redriven command. */
  readonly record: Buffer
}

/** Redrives in one call; answers for each whether it was still there. */
export async function redriveDead(
  link: RedisLink,
  keys: PartitionKeys,
  redrives: readonly Redrive[],
): Promise<boolean[]> {
  const args = redrives.flatMap(({ token, entryId, bytes, replacesBytes, record }) => {
    return [token, entryId, bytes, replacesBytes === undefined ? 0 : replacesBytes + 1, record]
  })
  const tenants = packTenants(redrives.map(({ tenant }) => tenant))
  const scriptKeys = [keys.dead, keys.ready, keys.records, keys.crashes, keys.tenantLoads]
  return verdicts(await link.run('redrive-dead', scriptKeys, [tenants, ...args]))
}

/** Deletes in one call; answers for each whether it was still there. */
export async function discardDead(
  link: RedisLink,
  keys: PartitionKeys,
  refs: readonly DeadRef[],
): Promise<boolean[]> {
  const args = refs.flatMap(({ token, entryId }) => [token, entryId])
  return verdicts(await link.run('discard-dead', [keys.dead, keys.records, keys.recordTimes], args))
}

/** Deletes dead letters older than `keepMs`, at most `countMax`; answers how many. 0: none is left. */
export async function trimDead(
  link: RedisLink,
  keys: PartitionKeys,
  keepMs: number,
  countMax: number,
): Promise<number> {
  return replyNumber(
    await link.run('trim-dead', [keys.dead, keys.records, keys.recordTimes], [keepMs, countMax]),
  )
}

function verdicts(reply: unknown): boolean[] {
  return [...replyText(reply)].map((digit) => digit === '1')
}
