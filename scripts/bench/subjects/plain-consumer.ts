/**
 * Baseline: a consumer group read as fast as ioredis can, with nothing around it. The next read is on its way before the last
 * one is acknowledged; nothing is decoded. With `emit` it writes an event for each entry, in the same pipeline: not
 * exactly once, for a crash between the two commands leaves one without the other.
 */
import { Redis } from 'ioredis'
import { input, tellReady } from './_subject.ts'

const { url, stream, group, count, emit } = input<{
  url: string
  stream: string
  group: string
  count: number
  emit?: string
}>()

const client = new Redis(url, { protocol: 2, replyMapping: 'legacy' })
await client.xgroup('CREATE', stream, group, '0').catch(() => undefined)

type Reply = [Buffer, [Buffer, Buffer[]][]][] | null

const read = (): Promise<Reply> =>
  client.xreadgroupBuffer('GROUP', group, 'plain', 'COUNT', count, 'STREAMS', stream, '>') as Promise<Reply>

tellReady({})
let next = read()
for (;;) {
  const reply = await next
  next = read()
  const entries = reply?.[0]?.[1] ?? []
  if (entries.length === 0) continue
  const ids = entries.map(([id]) => id)
  if (emit === undefined) {
    void client.xack(stream, group, ...ids)
    continue
  }
  const pipeline = client.pipeline()
  pipeline.xack(stream, group, ...ids)
  for (const [, fields] of entries) pipeline.xadd(emit, '*', '-', fields[1] ?? '')
  void pipeline.exec()
}
