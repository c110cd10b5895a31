/** Dead letters for tests, written as the settling of a batch writes them: the entry with its trail, and the side record. */
import type { RedisLink } from '../../src/redis/connection.ts'
import { encodeEntry, type Trail } from '../../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'
import { packPayload } from '../../src/redis/payload-codec.ts'

export interface PlantedLetter {
  readonly stream: string
  readonly partition: number
  readonly type: string
  readonly payload: unknown
  readonly key: string
  readonly error: string
  /** Time of death, ms; by default the server's present. */
  readonly deadAtMs?: number
  readonly trail?: Partial<Trail>
  readonly tickMs?: number
  readonly trace?: Buffer
}

export interface Planted {
  readonly token: string
  readonly entryId: string
  readonly keys: PartitionKeys
}

/** In order; their commands have `x` tokens. */
export async function plantDeadLetters(
  link: RedisLink,
  letters: readonly PlantedLetter[],
): Promise<Planted[]> {
  const planted: Planted[] = []
  for (const letter of letters) {
    const { stream, partition, type, payload, key, error, deadAtMs, trail, tickMs, trace } = letter
    const keys = partitionKeys(stream, partition)
    const failures = [{ attempt: 1, atMs: deadAtMs ?? Date.now(), error }]
    const whole: Trail = { attempts: 1, level: 0, redrives: 0, failures, ...trail }
    const envelope = { type, version: 1, atMs: deadAtMs ?? Date.now(), key, trace, tickMs, trail: whole }
    const blob = encodeEntry(envelope, packPayload(payload))
    const { client } = link
    const token = `x${await client.incr(keys.counter)}`
    const id = deadAtMs === undefined ? '*' : `${deadAtMs}-*`
    const entryId = (await client.xadd(keys.dead, id, token, blob)) ?? ''
    const record = packPayload({ attempts: whole.attempts, error, atMs: deadAtMs ?? Date.now() })
    await client.hset(keys.records, token, Buffer.concat([Buffer.from(`X${entryId}:`), record]))
    planted.push({ token, entryId, keys })
  }
  return planted
}
