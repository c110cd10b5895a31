/** A TCP proxy for the heartbeat's connection alone, which can go silent: open on both sides, and nothing passes. */
import type { Socket } from 'bun'
import type { RedisLinks } from '../../src/redis/connection.ts'
import type { TestRedis } from './redis-server.ts'

export interface HeartbeatProxy extends AsyncDisposable {
  /** The server as a worker should see it. */
  readonly redis: TestRedis
  /** From now on nothing passes on the connections that are open; new ones work. */
  silence(): void
}

interface Pipe {
  other: Socket<Pipe> | undefined
  early: Buffer[]
  isSilent: boolean
}

export async function heartbeatThrough(redis: TestRedis): Promise<HeartbeatProxy> {
  const pipes = new Set<Pipe>()
  const socket = redis.url.slice('unix://'.length)
  const open = (other: Socket<Pipe> | undefined): Pipe => {
    const pipe: Pipe = { other, early: [], isSilent: false }
    pipes.add(pipe)
    return pipe
  }
  const listener = Bun.listen<Pipe>({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      open: async (near) => {
        const pipe = open(undefined)
        near.data = pipe
        const far = await Bun.connect<Pipe>({
          unix: socket,
          data: open(near),
          socket: {
            data: ({ data }, bytes) => {
              if (!data.isSilent) data.other?.write(bytes)
            },
            close: ({ data }) => {
              data.other?.end()
            },
          },
        })
        pipe.other = far
        for (const bytes of pipe.early) far.write(bytes)
        pipe.early = []
      },
      data: ({ data }, bytes) => {
        if (data.isSilent) return
        if (data.other === undefined) data.early.push(Buffer.from(bytes))
        else data.other.write(bytes)
      },
      close: ({ data }) => {
        data.other?.end()
      },
    },
  })
  const { links } = redis
  const seen = {
    options: { ...links.options, address: { url: `redis://127.0.0.1:${listener.port}` } },
    open: links.open.bind(links),
    close: links.close.bind(links),
  } as unknown as RedisLinks
  return {
    redis: { ...redis, links: seen },
    silence: () => {
      for (const pipe of pipes) pipe.isSilent = true
    },
    [Symbol.asyncDispose]: async () => listener.stop(true),
  }
}
