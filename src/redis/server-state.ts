/** One look at the server as a whole: clock, memory, eviction. One script, which also runs when memory or disk are full. */
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'

export interface ServerState {
  /** ms since 1970, whole. */
  readonly timeMs: number
  readonly usedBytes: number
  /** `maxmemory`; 0 when none is set. */
  readonly limitBytes: number
  /** Of the machine, as the server sees it. */
  readonly systemBytes: number
  readonly evictionPolicy: string
  /** Since the server started. */
  readonly evictedKeys: number
}

export async function readServerState(link: RedisLink): Promise<ServerState> {
  const [seconds, micros, memory, stats] = replyArray(await link.run('server-state', [], []))
  const text = `${replyText(memory)}\n${replyText(stats)}`
  const field = (name: string): string => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(text)?.[1] ?? ''
  return {
    timeMs: replyNumber(seconds) * 1000 + Math.floor(replyNumber(micros) / 1000),
    usedBytes: Number(field('used_memory')),
    limitBytes: Number(field('maxmemory')),
    systemBytes: Number(field('total_system_memory')),
    evictionPolicy: field('maxmemory_policy'),
    evictedKeys: Number(field('evicted_keys')),
  }
}
