/** Keys, strings, hashes, sets and sorted sets of the in-memory Redis. */
import type { CommandRule, Keyspace } from './keyspace.ts'
import { formatGeneral } from './lua-values.ts'
import { StringValue } from './plain-values.ts'
import { fault, OK, type Reply, Status, SYNTAX } from './redis-replies.ts'
import type { ScoredMember } from './sorted-set.ts'

const NOT_INTEGER = 'ERR value is not an integer or out of range'

export function wholeNumber(text: string | undefined): number {
  if (text === undefined || !/^-?\d{1,19}$/.test(text)) throw fault(NOT_INTEGER)
  return Number(text)
}

function score(text: string): number {
  if (/^[+-]?inf$/i.test(text))
    return text.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value)) throw fault('ERR value is not a valid float')
  return value
}

function add(redis: Keyspace, key: string, by: number): number {
  const value = wholeNumber(redis.string(key) ?? '0') + by
  redis.put(key, new StringValue(String(value)))
  return value
}

function set(redis: Keyspace, key: string, text: string, options: readonly string[]): Reply {
  let expiryMs: number | undefined
  let condition: string | undefined
  for (let i = 0; i < options.length; i++) {
    const option = (options[i] ?? '').toUpperCase()
    if (option === 'PX') expiryMs = redis.nowMs + wholeNumber(options[++i])
    else if (option === 'EX') expiryMs = redis.nowMs + 1000 * wholeNumber(options[++i])
    else if (option === 'NX' || option === 'XX') condition = option
    else throw fault(SYNTAX)
  }
  const exists = redis.typeOf(key) !== undefined
  if ((condition === 'NX' && exists) || (condition === 'XX' && !exists)) return null
  redis.delete(key)
  redis.put(key, new StringValue(text))
  redis.expireAt(key, expiryMs)
  return OK
}

/** Redis drops a collection with its last element. */
function dropIfEmpty(redis: Keyspace, key: string, size: number): void {
  if (size === 0) redis.delete(key)
}

interface ScoreBound {
  readonly score: number
  readonly exclusive: boolean
}

function scoreBound(text: string): ScoreBound {
  const exclusive = text.startsWith('(')
  try {
    return { score: score(exclusive ? text.slice(1) : text), exclusive }
  } catch {
    throw fault('ERR min or max is not a float')
  }
}

function isAtLeast(value: number, bound: ScoreBound): boolean {
  return bound.exclusive ? value > bound.score : value >= bound.score
}

function isAtMost(value: number, bound: ScoreBound): boolean {
  return bound.exclusive ? value < bound.score : value <= bound.score
}

function lexTest(text: string, isLow: boolean): (member: string) => boolean {
  if (text === '-') return () => isLow
  if (text === '+') return () => !isLow
  const border = text.slice(1)
  if (text.startsWith('[')) return (member) => (isLow ? member >= border : member <= border)
  if (text.startsWith('(')) return (member) => (isLow ? member > border : member < border)
  throw fault('ERR min or max not valid string range item')
}

function limited<Item>(items: readonly Item[], options: readonly string[]): readonly Item[] {
  if (options.length === 0) return items
  if ((options[0] ?? '').toUpperCase() !== 'LIMIT' || options.length !== 3) throw fault(SYNTAX)
  const [from, count] = [wholeNumber(options[1]), wholeNumber(options[2])]
  return count < 0 ? items.slice(from) : items.slice(from, from + count)
}

function withScores(members: readonly ScoredMember[], shown: boolean): Reply {
  if (!shown) return members.map(({ member }) => member)
  return members.flatMap(({ member, score: value }) => [member, formatGeneral(value, 17)])
}

function byScore(redis: Keyspace, key: string, low: ScoreBound, high: ScoreBound): ScoredMember[] {
  const all = redis.find(key, 'zset')?.ascending ?? []
  return all.filter((each) => isAtLeast(each.score, low) && isAtMost(each.score, high))
}

function byRank(redis: Keyspace, key: string, from: string, to: string): ScoredMember[] {
  const all = redis.find(key, 'zset')?.ascending ?? []
  const place = (text: string): number => {
    const at = wholeNumber(text)
    return at < 0 ? all.length + at : at
  }
  return all.slice(Math.max(0, place(from)), place(to) + 1)
}

function isWord(text: string | undefined, word: string): boolean {
  if (text === undefined) return false
  if (text.toUpperCase() !== word) throw fault(SYNTAX)
  return true
}

const keys: Readonly<Record<string, CommandRule>> = {
  EXISTS: {
    min: 1,
    run: ({ redis, args }) => args.filter((key) => redis.typeOf(key) !== undefined).length,
  },
  DEL: {
    min: 1,
    writes: true,
    run: ({ redis, args }) =>
      args.filter((key) => redis.typeOf(key) !== undefined && redis.delete(key)).length,
  },
  UNLINK: {
    min: 1,
    writes: true,
    run: ({ redis, args }) =>
      args.filter((key) => redis.typeOf(key) !== undefined && redis.delete(key)).length,
  },
  TYPE: { min: 1, max: 1, run: ({ redis, args: [key = ''] }) => new Status(redis.typeOf(key) ?? 'none') },
  PEXPIRE: {
    min: 2,
    max: 2,
    writes: true,
    run: ({ redis, args: [key = '', ms] }) => {
      const durationMs = wholeNumber(ms)
      if (redis.typeOf(key) === undefined) return 0
      if (durationMs <= 0) redis.delete(key)
      else redis.expireAt(key, redis.nowMs + durationMs)
      return 1
    },
  },
  PTTL: {
    min: 1,
    max: 1,
    run: ({ redis, args: [key = ''] }) => {
      if (redis.typeOf(key) === undefined) return -2
      const expiry = redis.expiryOf(key)
      return expiry === undefined ? -1 : expiry - redis.nowMs
    },
  },
  GET: { min: 1, max: 1, run: ({ redis, args: [key = ''] }) => redis.string(key) ?? null },
  SET: {
    min: 2,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', text = '', ...options] }) => set(redis, key, text, options),
  },
  INCR: {
    min: 1,
    max: 1,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = ''] }) => add(redis, key, 1),
  },
  INCRBY: {
    min: 2,
    max: 2,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', by] }) => add(redis, key, wholeNumber(by)),
  },
}

const hashes: Readonly<Record<string, CommandRule>> = {
  HGET: {
    min: 2,
    max: 2,
    run: ({ redis, args: [key = '', field = ''] }) => redis.find(key, 'hash')?.fields.get(field) ?? null,
  },
  HMGET: {
    min: 2,
    run: ({ redis, args: [key = '', ...fields] }) => {
      const hash = redis.find(key, 'hash')
      return fields.map((field) => hash?.fields.get(field) ?? null)
    },
  },
  HGETALL: {
    min: 1,
    max: 1,
    run: ({ redis, args: [key = ''] }) => [...(redis.find(key, 'hash')?.fields ?? [])].flat(),
  },
  HKEYS: {
    min: 1,
    max: 1,
    run: ({ redis, args: [key = ''] }) => [...(redis.find(key, 'hash')?.fields.keys() ?? [])],
  },
  HLEN: { min: 1, max: 1, run: ({ redis, args: [key = ''] }) => redis.find(key, 'hash')?.fields.size ?? 0 },
  HEXISTS: {
    min: 2,
    max: 2,
    run: ({ redis, args: [key = '', field = ''] }) =>
      redis.find(key, 'hash')?.fields.has(field) === true ? 1 : 0,
  },
  HSET: {
    min: 3,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', ...pairs] }) => {
      if (pairs.length % 2 !== 0) throw fault("ERR wrong number of arguments for 'hset' command")
      const { fields } = redis.hash(key)
      const before = fields.size
      for (let i = 0; i < pairs.length; i += 2) fields.set(pairs[i] ?? '', pairs[i + 1] ?? '')
      return fields.size - before
    },
  },
  HSETNX: {
    min: 3,
    max: 3,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', field = '', text = ''] }) => {
      const { fields } = redis.hash(key)
      if (fields.has(field)) return 0
      fields.set(field, text)
      return 1
    },
  },
  HINCRBY: {
    min: 3,
    max: 3,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', field = '', by] }) => {
      const { fields } = redis.hash(key)
      const value = wholeNumber(fields.get(field) ?? '0') + wholeNumber(by)
      fields.set(field, String(value))
      return value
    },
  },
  HDEL: {
    min: 2,
    writes: true,
    run: ({ redis, args: [key = '', ...fields] }) => {
      const hash = redis.find(key, 'hash')
      if (hash === undefined) return 0
      const count = fields.filter((field) => hash.fields.delete(field)).length
      dropIfEmpty(redis, key, hash.fields.size)
      return count
    },
  },
}

const sets: Readonly<Record<string, CommandRule>> = {
  SADD: {
    min: 2,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', ...added] }) => {
      const { members } = redis.set(key)
      const before = members.size
      for (const member of added) members.add(member)
      return members.size - before
    },
  },
  SREM: {
    min: 2,
    writes: true,
    run: ({ redis, args: [key = '', ...removed] }) => {
      const found = redis.find(key, 'set')
      if (found === undefined) return 0
      const count = removed.filter((member) => found.members.delete(member)).length
      dropIfEmpty(redis, key, found.members.size)
      return count
    },
  },
  SCARD: { min: 1, max: 1, run: ({ redis, args: [key = ''] }) => redis.find(key, 'set')?.members.size ?? 0 },
  SMEMBERS: {
    min: 1,
    max: 1,
    run: ({ redis, args: [key = ''] }) => [...(redis.find(key, 'set')?.members ?? [])],
  },
  SISMEMBER: {
    min: 2,
    max: 2,
    run: ({ redis, args: [key = '', member = ''] }) =>
      redis.find(key, 'set')?.members.has(member) === true ? 1 : 0,
  },
}

const sortedSets: Readonly<Record<string, CommandRule>> = {
  ZADD: {
    min: 3,
    writes: true,
    grows: true,
    run: ({ redis, args: [key = '', ...pairs] }) => {
      if (pairs.length % 2 !== 0) throw fault(SYNTAX)
      const scored: ScoredMember[] = []
      for (let i = 0; i < pairs.length; i += 2) {
        scored.push({ score: score(pairs[i] ?? ''), member: pairs[i + 1] ?? '' })
      }
      const zset = redis.sortedSet(key)
      return scored.filter((each) => zset.add(each.member, each.score)).length
    },
  },
  ZREM: {
    min: 2,
    writes: true,
    run: ({ redis, args: [key = '', ...members] }) => {
      const zset = redis.find(key, 'zset')
      if (zset === undefined) return 0
      const count = members.filter((member) => zset.remove(member)).length
      dropIfEmpty(redis, key, zset.scores.size)
      return count
    },
  },
  ZSCORE: {
    min: 2,
    max: 2,
    run: ({ redis, args: [key = '', member = ''] }) => {
      const value = redis.find(key, 'zset')?.scores.get(member)
      return value === undefined ? null : formatGeneral(value, 17)
    },
  },
  ZCARD: { min: 1, max: 1, run: ({ redis, args: [key = ''] }) => redis.find(key, 'zset')?.scores.size ?? 0 },
  ZCOUNT: {
    min: 3,
    max: 3,
    run: ({ redis, args: [key = '', low = '', high = ''] }) =>
      byScore(redis, key, scoreBound(low), scoreBound(high)).length,
  },
  ZRANGE: {
    min: 3,
    max: 4,
    run: ({ redis, args: [key = '', from = '', to = '', option] }) =>
      withScores(byRank(redis, key, from, to), isWord(option, 'WITHSCORES')),
  },
  ZRANGEBYSCORE: {
    min: 3,
    run: ({ redis, args: [key = '', low = '', high = '', ...options] }) => {
      const shown = (options[0] ?? '').toUpperCase() === 'WITHSCORES'
      const found = byScore(redis, key, scoreBound(low), scoreBound(high))
      return withScores(limited(found, shown ? options.slice(1) : options), shown)
    },
  },
  ZREMRANGEBYSCORE: {
    min: 3,
    max: 3,
    writes: true,
    run: ({ redis, args: [key = '', low = '', high = ''] }) => {
      const found = byScore(redis, key, scoreBound(low), scoreBound(high))
      const zset = redis.find(key, 'zset')
      for (const { member } of found) zset?.remove(member)
      if (zset !== undefined) dropIfEmpty(redis, key, zset.scores.size)
      return found.length
    },
  },
  ZRANGEBYLEX: {
    min: 3,
    run: ({ redis, args: [key = '', low = '', high = '', ...options] }) => {
      const [isAbove, isBelow] = [lexTest(low, true), lexTest(high, false)]
      const all = redis.find(key, 'zset')?.ascending ?? []
      const found = all.filter(({ member }) => isAbove(member) && isBelow(member))
      return withScores(limited(found, options), false)
    },
  },
  ZREVRANGEBYLEX: {
    min: 3,
    run: ({ redis, args: [key = '', high = '', low = '', ...options] }) => {
      const [isAbove, isBelow] = [lexTest(low, true), lexTest(high, false)]
      const all = redis.find(key, 'zset')?.ascending ?? []
      const found = all.filter(({ member }) => isAbove(member) && isBelow(member)).reverse()
      return withScores(limited(found, options), false)
    },
  },
}

export const DATA_COMMANDS: Readonly<Record<string, CommandRule>> = {
  ...keys,
  ...hashes,
  ...sets,
  ...sortedSets,
}
