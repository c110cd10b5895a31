/**
 * API keys as Redis has them: one hash of records, a revision that changes with every write, and coarse times of last use.
 * Records are texts here; what is in them is the business of `identity`. All of them are few enough to be read whole.
 */
import { isNothing, replyArray, replyNumber, replyText, replyUtf8 } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { API_KEYS_KEY, API_KEYS_REVISION_KEY, API_KEYS_USED_KEY } from './keys.ts'

/** Every process that asks for credentials keeps all of them in memory, mostly some hundred bytes each. */
export const API_KEYS_MAX = 10_000

export interface StoredApiKeys {
  readonly revision: string
  /** Record by id; undefined when the revision is the known one. */
  readonly records: ReadonlyMap<string, string> | undefined
}

/** All keys, unless `knownRevision` is still theirs. */
export async function readApiKeys(
  link: RedisLink,
  knownRevision: string | undefined,
): Promise<StoredApiKeys> {
  const keys = [API_KEYS_KEY, API_KEYS_REVISION_KEY]
  const [revision, pairs] = replyArray(await link.run('read-keys', keys, [knownRevision ?? '-']))
  if (isNothing(pairs)) return { revision: replyText(revision), records: undefined }
  const flat = replyArray(pairs)
  const records = new Map<string, string>()
  for (let i = 0; i + 1 < flat.length; i += 2) records.set(replyText(flat[i]), replyUtf8(flat[i + 1]))
  return { revision: replyText(revision), records }
}

export async function readApiKey(link: RedisLink, id: string): Promise<string | undefined> {
  return (await link.use('an API key', (client) => client.hget(API_KEYS_KEY, id))) ?? undefined
}

export async function countApiKeys(link: RedisLink): Promise<number> {
  return await link.use('the number of API keys', (client) => client.hlen(API_KEYS_KEY))
}

export interface ApiKeyChange {
  readonly id: string
  /** The record that was read; undefined: there was none. */
  readonly seen: string | undefined
  /** Undefined deletes it. */
  readonly next: string | undefined
  /** Never used before. */
  readonly revision: string
}

/** `changed`: somebody else wrote it meanwhile, read it again. */
export async function putApiKey(
  link: RedisLink,
  { id, seen = '', next = '', revision }: ApiKeyChange,
): Promise<'stored' | 'changed' | 'full'> {
  const keys = [API_KEYS_KEY, API_KEYS_REVISION_KEY, API_KEYS_USED_KEY]
  const answer = replyText(await link.run('put-key', keys, [id, seen, next, revision, API_KEYS_MAX]))
  return answer as 'stored' | 'changed' | 'full'
}

export async function noteApiKeysUsed(link: RedisLink, ids: readonly string[], atMs: number): Promise<void> {
  replyNumber(await link.run('note-keys-used', [API_KEYS_KEY, API_KEYS_USED_KEY], [atMs, ...ids]))
}

/** When keys were last used, ms since 1970, by id. */
export async function readApiKeysUsed(link: RedisLink): Promise<ReadonlyMap<string, number>> {
  const fields = await link.use('when API keys were used', (client) => client.hgetall(API_KEYS_USED_KEY))
  return new Map(Object.entries(fields).map(([id, ms]) => [id, Number(ms)]))
}
