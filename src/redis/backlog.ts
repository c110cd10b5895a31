/** How much waits in each stream and how full Redis is: one pipeline, a few microseconds of the server for each partition. */
import type { StreamDefinition } from '../contracts/stream.ts'
import { replyNumber, replyText } from './bytes.ts'
import { type RedisLink, redisError } from './connection.ts'
import { partitionKeys } from './keys.ts'

export interface Backlog {
  /** By stream: entries in its command and ready streams, acknowledged but untrimmed ones included. */
  readonly depths: ReadonlyMap<string, number>
  readonly memoryUsedBytes: number
  /** `maxmemory`, or the machine's memory when none is set. */
  readonly memoryLimitBytes: number
}

export async function readBacklog(link: RedisLink, streams: Iterable<StreamDefinition>): Promise<Backlog> {
  const known = [...streams]
  const replies = await link.use('a sample of the backlog', async (client) => {
    const pipeline = client.pipeline()
    pipeline.info('memory')
    for (const { name, partitions } of known) {
      for (let partition = 0; partition < partitions; partition++) {
        const keys = partitionKeys(name, partition)
        pipeline.xlen(keys.commands)
        pipeline.xlen(keys.ready)
      }
    }
    return (await pipeline.exec()) ?? []
  })
  let at = 0
  const next = (): unknown => {
    const [error, value] = replies[at++] ?? [new Error('a reply is missing'), undefined]
    if (error !== null) throw redisError(error, 'a sample of the backlog')
    return value
  }
  const memory = parseInfo(replyText(next()))
  const depths = new Map<string, number>()
  for (const { name, partitions } of known) {
    let depth = 0
    for (let i = 0; i < partitions * 2; i++) depth += replyNumber(next())
    depths.set(name, depth)
  }
  const number = (field: string): number => Number(memory.get(field) ?? '0')
  return {
    depths,
    memoryUsedBytes: number('used_memory'),
    memoryLimitBytes: number('maxmemory') || number('total_system_memory'),
  }
}

function parseInfo(text: string): Map<string, string> {
  const fields = new Map<string, string>()
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':')
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1))
  }
  return fields
}
