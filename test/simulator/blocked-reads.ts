/** Stories of blocked reads, told to the in-memory Redis and to a real server: who is answered what, and when. */
import type { RedisLink } from '../../src/redis/connection.ts'
import { BLOCKED, type ServerClient } from './keyspace.ts'
import type { MemoryRedis } from './memory-redis.ts'
import { fromBytes, RedisFault, type Reply, toBytes } from './redis-replies.ts'

/** Begins with the name of a connection; `$r1` in a word is the id of connection r1. */
export type Line = readonly [connection: string, ...words: string[]]

/** After each line: what it was answered, and what blocked reads were answered because of it. */
export type Tale = unknown[]

const group = (consumer: string, ...keys: readonly string[]): string[] => [
  ...['XREADGROUP', 'GROUP', 'g', consumer, 'COUNT', '2', 'BLOCK', '0', 'STREAMS'],
  ...keys,
  ...keys.map(() => '>'),
]
const created: Line[] = ['a', 'b'].map((key) => ['w', 'XGROUP', 'CREATE', key, 'g', '0', 'MKSTREAM'])
const pending: Line = ['w', 'XPENDING', 'a', 'g', '-', '+', '10']
const consumers: Line = ['w', 'XINFO', 'CONSUMERS', 'a', 'g']

export const STORIES: Readonly<Record<string, readonly Line[]>> = {
  'the first who waits gets it, the next the next': [
    ...created,
    ['r1', ...group('c1', 'a')],
    ['r2', ...group('c2', 'a')],
    consumers,
    ['w', 'XADD', 'a', '1-1', 'f', 'v'],
    pending,
    ['w', 'XADD', 'a', '2-1', 'f', 'v'],
    pending,
    ['w', 'XADD', 'a', '3-1', 'f', 'v'],
  ],
  'a script that adds to two streams wakes a reader of both once': [
    ...created,
    ['r1', ...group('c1', 'a', 'b')],
    [
      'w',
      'EVAL',
      "redis.call('XADD','b','1-1','f','v') redis.call('XADD','a','1-1','f','v') redis.call('XADD','b','1-2','f','v')",
      '0',
    ],
    pending,
    ['w', 'XPENDING', 'b', 'g', '-', '+', '10'],
    ['r1', ...group('c1', 'a', 'b')],
  ],
  'a group that is destroyed ends its reads': [
    ...created,
    ['r1', ...group('c1', 'a', 'b')],
    ['r2', ...group('c2', 'b')],
    ['w', 'XGROUP', 'DESTROY', 'a', 'g'],
    ['w', 'XADD', 'b', '1-1', 'f', 'v'],
  ],
  'a stream that is deleted ends the reads of its groups, and no others': [
    ...created,
    ['r1', ...group('c1', 'a')],
    ['r2', 'XREAD', 'BLOCK', '0', 'STREAMS', 'a', '0'],
    ['w', 'DEL', 'a'],
    ['w', 'XADD', 'a', '1-1', 'f', 'v'],
  ],
  'everyone who reads without a group gets it': [
    ['r1', 'XREAD', 'COUNT', '1', 'BLOCK', '0', 'STREAMS', 'a', 'b', '$', '$'],
    ['r2', 'XREAD', 'BLOCK', '0', 'STREAMS', 'a', '5-0'],
    ['w', 'XADD', 'a', '1-1', 'f', 'v'],
    ['w', 'XADD', 'a', '6-1', 'f', 'v'],
  ],
  'a read is unblocked from outside': [
    ...created,
    ['r1', ...group('c1', 'a')],
    ['r2', ...group('c2', 'a')],
    ['w', 'CLIENT', 'UNBLOCK', '$r1'],
    ['w', 'CLIENT', 'UNBLOCK', '$r2', 'ERROR'],
    ['w', 'CLIENT', 'UNBLOCK', '$r2'],
    ['w', 'XADD', 'a', '1-1', 'f', 'v'],
    pending,
  ],
  'what is added and taken away again wakes with nothing': [
    ...created,
    ['r1', ...group('c1', 'a')],
    ['w', 'EVAL', "redis.call('XADD','a','1-1','f','v') redis.call('XDEL','a','1-1')", '0'],
    ['w', 'XADD', 'a', '2-1', 'f', 'v'],
    pending,
  ],
  'a group that was moved back gives again': [
    ...created,
    ['w', 'XADD', 'a', '1-1', 'f', 'v'],
    ['r1', ...group('c1', 'a')],
    ['r1', ...group('c1', 'a')],
    ['w', 'XGROUP', 'SETID', 'a', 'g', '0'],
    ['w', 'XADD', 'a', '2-1', 'f', 'v'],
    pending,
  ],
}

export function tellMemory(redis: MemoryRedis, story: readonly Line[]): Tale {
  const tale: Tale = []
  const late: unknown[] = []
  const peers = new Map<string, ServerClient>()
  const peerOf = (name: string): ServerClient => {
    const known = peers.get(name)
    if (known !== undefined) return known
    const peer = redis.connect({
      answer: (reply) => void late.push([name, plain(reply)]),
      close: () => undefined,
    })
    peers.set(name, peer)
    return peer
  }
  for (const name of connectionsOf(story)) peerOf(name)
  for (const [name, ...words] of story) {
    const named = words.map((word) => (word.startsWith('$r') ? String(peerOf(word.slice(1)).id) : word))
    const answer = redis.execute(peerOf(name), named.map(toBytes))
    tale.push([words.join(' '), answer === BLOCKED ? 'blocked' : plain(answer), late.splice(0)])
  }
  return tale
}

export async function tellServer(open: () => Promise<RedisLink>, story: readonly Line[]): Promise<Tale> {
  const tale: Tale = []
  const links = new Map<string, { link: RedisLink; id: string; waits: Promise<unknown> | undefined }>()
  for (const name of connectionsOf(story)) {
    const link = await open()
    links.set(name, { link, id: String(await link.client.client('ID')), waits: undefined })
  }
  const linkOf = (name: string) => {
    const found = links.get(name)
    if (found === undefined) throw new Error(`there is no connection ${name}`)
    return found
  }
  const watch = await open()
  const isBlocked = async (id: string): Promise<boolean> =>
    /flags=\w*b/.test(String(await watch.client.call('CLIENT', 'LIST', 'ID', id)))
  for (const [name, ...words] of story) {
    const own = linkOf(name)
    const [command = '', ...rest] = words.map((word) =>
      word.startsWith('$r') ? linkOf(word.slice(1)).id : word,
    )
    const work = own.link.client
      .call(command, ...rest)
      .catch((error: unknown) => (error instanceof Error ? error.message : 'no error'))
    let answer: unknown = 'blocked'
    if (/BLOCK /.test(words.join(' '))) {
      const first = work.then((reply) => ({ reply }))
      let ended: { reply: unknown } | undefined
      while (ended === undefined && !(await isBlocked(own.id)))
        ended = await Promise.race([first, Bun.sleep(1).then(() => undefined)])
      if (ended === undefined) own.waits = work
      else answer = ended.reply
    } else answer = await work
    const late: unknown[] = []
    for (const [reader, each] of links) {
      if (each.waits === undefined || (await isBlocked(each.id))) continue
      late.push([reader, await each.waits])
      each.waits = undefined
    }
    tale.push([words.join(' '), answer, late])
  }
  for (const { link } of links.values()) link.close()
  watch.close()
  return tale
}

function connectionsOf(story: readonly Line[]): Set<string> {
  return new Set(story.map(([name]) => name))
}

function plain(reply: Reply): unknown {
  return reply instanceof RedisFault ? reply.message : fromBytes(reply, false)
}
