/**
 * Baseline: what anyone would write to take commands in, with nothing around it. Bun.serve, JSON.parse, the same schema, and one
 * script a turn of the event loop that appends what came in; the answer goes out when Redis has it.
 */
import { Redis } from 'ioredis'
import { orderLine } from '../app/order-line.ts'
import { input, tellReady } from './_subject.ts'

const { redisUrl, stream } = input<{ redisUrl: string; stream: string }>()

/** As the product's: all commands in one value, each behind its length. */
const APPEND = `#!lua
local packed, at, count, ids = ARGV[1], 1, 0, {}
local call, unpack, sub, size = redis.call, struct.unpack, string.sub, #ARGV[1]
while at <= size do
  local length, from = unpack('>I4', packed, at)
  at = from + length
  count = count + 1
  ids[count] = call('XADD', KEYS[1], '*', '-', sub(packed, from, at - 1))
end
return table.concat(ids, ' ')`

const redis = new Redis(redisUrl, { protocol: 2, replyMapping: 'legacy' })
const digest = String(await redis.script('LOAD', APPEND))

interface Waiting {
  readonly blob: Buffer
  readonly resolve: (id: string) => void
}

let waiting: Waiting[] = []

function append(line: object): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  if (waiting.length === 0) setImmediate(flush)
  waiting.push({ blob: Buffer.from(JSON.stringify(line)), resolve })
  return promise
}

function flush(): void {
  const batch = waiting
  waiting = []
  const packed = Buffer.allocUnsafe(batch.reduce((sum, { blob }) => sum + 4 + blob.length, 0))
  let at = 0
  for (const { blob } of batch) {
    at = packed.writeUInt32BE(blob.length, at)
    at += blob.copy(packed, at)
  }
  void answer(batch, packed)
}

async function answer(batch: readonly Waiting[], packed: Buffer): Promise<void> {
  const ids = String(await redis.evalsha(digest, 1, stream, packed)).split(' ')
  for (const [i, { resolve }] of batch.entries()) resolve(ids[i] ?? '')
}

const HEADERS = { 'content-type': 'application/json' }

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  async fetch(request) {
    const checked = orderLine.safeParse(JSON.parse(await request.text()))
    if (!checked.success) return new Response(checked.error.message, { status: 422 })
    const id = await append(checked.data)
    return new Response(`{"id":"${id}"}`, { status: 202, headers: HEADERS })
  },
})
tellReady({ url: server.url.origin })
