/**
 * BullMQ, as its documentation recommends: adding in bulk, adding one by one, working on a backlog with a processor that does
 * nothing. Plain JavaScript, for it runs on Bun and on Node. One JSON argument; it says {"ready":…} when it has begun.
 */
import { createBunRedisClient, Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'

const {
  url,
  role,
  queue: name,
  data,
  callers,
  chunk,
  count,
  workers,
  driver = 'ioredis',
  client = {},
  worker = {},
  eventsMax = 10_000,
} = JSON.parse(process.argv[2] ?? '{}')

/** ioredis on both runtimes; on Bun its own client may take its place. */
const connect = () =>
  driver === 'bun'
    ? createBunRedisClient(new globalThis.Bun.RedisClient(url))
    : new Redis(url, { maxRetriesPerRequest: null, ...client })

const queueOf = () =>
  new Queue(name, {
    connection: connect(),
    streams: { events: { maxLen: eventsMax } },
    defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
  })

let at = 0
const next = () => {
  at = at + 1 === data.length ? 0 : at + 1
  return data[at]
}

async function addOneByOne(queue) {
  for (;;) await queue.add('line.add', next())
}

async function addInBulk(queue, limit = Number.POSITIVE_INFINITY) {
  for (let added = 0; added < limit; added += chunk)
    await queue.addBulk(Array.from({ length: chunk }, () => ({ name: 'line.add', data: next() })))
}

switch (role) {
  case 'add': {
    const queue = queueOf()
    await queue.waitUntilReady()
    console.log(JSON.stringify({ ready: {} }))
    await Promise.all(Array.from({ length: callers }, () => addOneByOne(queue)))
    break
  }
  case 'add-bulk': {
    const queue = queueOf()
    await queue.waitUntilReady()
    console.log(JSON.stringify({ ready: {} }))
    await Promise.all(Array.from({ length: callers }, () => addInBulk(queue)))
    break
  }
  case 'fill': {
    const queue = queueOf()
    await queue.waitUntilReady()
    await Promise.all(Array.from({ length: callers }, () => addInBulk(queue, count / callers)))
    console.log(JSON.stringify({ ready: {} }))
    break
  }
  case 'process': {
    for (let i = 0; i < workers; i++) {
      const each = new Worker(name, async () => undefined, {
        connection: connect(),
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
        ...worker,
      })
      each.on('error', (error) => console.error(error))
    }
    console.log(JSON.stringify({ ready: {} }))
    break
  }
  default:
    throw new Error(`no role ${role}`)
}
