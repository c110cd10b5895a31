/** What a command costs in Redis's memory while it waits: all that the server holds more of than before, not its stream alone. */
import type { Redis } from 'ioredis'
import { postCommands } from '../backlog.ts'
import { commandsKey, TYPE } from '../consuming.ts'
import { type Contestant, duel } from '../duel.ts'
import { orderLine, PAYLOAD_BYTES } from '../payload.ts'
import type { Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const APPENDS = 1000
const RAW_STREAM = 'raw'

export const memory: Scenario = {
  name: 'memory',
  summary: 'bytes of Redis for each command that waits',
  async play(stage) {
    const commands = stage.quick ? 100_000 : 500_000
    const row = await duel(stage, {
      name: 'memory',
      unit: 'bytes/command',
      millrace: posted(stage, { name: 'millrace', app: 'noop', commands, partitions: 1 }),
      baseline: appended(stage, commands),
      beside: [posted(stage, { name: 'ordered by key', app: 'ordered', commands, partitions: 8 })],
      budget: { of: 'ratio', is: 'at most', bound: 1.25 },
      rounds: { full: 3, quick: 1 },
      setting: { commands, payloadBytes: PAYLOAD_BYTES, partitions: 1 },
    })
    return [row]
  },
}

/** Commands that came through the API. */
function posted(
  stage: Stage,
  options: {
    readonly name: string
    readonly app: string
    readonly commands: number
    readonly partitions: number
  },
): Contestant {
  const { name, app, commands, partitions } = options
  const streams = Array.from({ length: partitions }, (_, partition) => commandsKey(partition))
  return contestant(stage, { name, streams, commands }, async (redis) => {
    await postCommands(stage, { redis, app, type: TYPE, commands })
  })
}

/** The same payloads as JSON, one field an entry. */
function appended(stage: Stage, commands: number): Contestant {
  const options = { name: 'XADD of the same JSON', streams: [RAW_STREAM], commands }
  return contestant(stage, options, async (_, client) => {
    for (let from = 0; from < commands; from += APPENDS) {
      const pipeline = client.pipeline()
      const to = Math.min(commands, from + APPENDS)
      for (let n = from; n < to; n++) pipeline.xadd(RAW_STREAM, '*', 'p', JSON.stringify(orderLine(n)))
      await pipeline.exec()
    }
  })
}

type Fill = (redis: Awaited<ReturnType<Stage['redis']>>, client: Redis) => Promise<void>

/** Each round has a server of its own: memory that an earlier one has used is not memory that was never used. */
function contestant(
  stage: Stage,
  {
    name,
    streams,
    commands,
  }: { readonly name: string; readonly streams: readonly string[]; readonly commands: number },
  fill: Fill,
): Contestant {
  return {
    name,
    play: async () => {
      const redis = await stage.redis()
      const client = stage.client(redis)
      const before = await heldBytes(client)
      await fill(redis, client)
      const value = ((await heldBytes(client)) - before) / commands
      let streamBytes = 0
      for (const stream of streams) streamBytes += (await client.memory('USAGE', stream, 'SAMPLES', 0)) ?? 0
      client.disconnect()
      await stage.endRedis(redis)
      return { value, details: { 'of it in streams': Number((streamBytes / commands).toFixed(1)) } }
    },
  }
}

/** What is allocated, without the buffers of connections and of the log, which come and go. */
async function heldBytes(client: Redis): Promise<number> {
  const info = await client.info('memory')
  const bytesOf = (field: string): number => Number(new RegExp(`^${field}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
  return bytesOf('used_memory') - bytesOf('mem_clients_normal') - bytesOf('mem_aof_buffer')
}
