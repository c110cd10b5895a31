/**
 * Baseline: the fastest append that was found for ioredis, with nothing around it. Each command becomes JSON, as the
 * product stores it; 256 go into one script as one value, and several scripts are on their way. Nothing is checked, and no command
 * gets an answer of its own.
 *
 * Also tried, on the same machine in the same minutes: 256 arguments instead of one value, a pipeline of XADDs, 512 in a script, other numbers of scripts: all slower.
 */
import { Redis } from 'ioredis'
import { orderLines } from '../payload.ts'
import { input, tellReady } from './_subject.ts'

const { url, stream, scripts } = input<{ url: string; stream: string; scripts: number }>()

const BATCH = 256
const BATCH_BYTES = BATCH * 256

const APPEND = `#!lua
local packed, at = ARGV[1], 1
local call, unpack, sub, size = redis.call, struct.unpack, string.sub, #ARGV[1]
while at <= size do
  local length, from = unpack('>I4', packed, at)
  at = from + length
  call('XADD', KEYS[1], '*', '-', sub(packed, from, at - 1))
end`

const client = new Redis(url, { protocol: 2, replyMapping: 'legacy' })
const digest = String(await client.script('LOAD', APPEND))
const next = orderLines()

async function lane(): Promise<void> {
  for (;;) await client.callBuffer('EVALSHA', digest, 1, stream, packed())
}

function packed(): Buffer {
  const out = Buffer.allocUnsafe(BATCH_BYTES)
  let at = 0
  for (let i = 0; i < BATCH; i++) {
    const length = out.write(JSON.stringify(next()), at + 4)
    at = out.writeUInt32BE(length, at) + length
  }
  return out.subarray(0, at)
}

tellReady({})
await Promise.all(Array.from({ length: scripts }, lane))
