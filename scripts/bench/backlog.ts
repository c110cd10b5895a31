/**
 * A backlog that any number of rounds can start from: commands posted through the product's own API once, kept aside in
 * another database of the same server, and copied back before each round.
 */
import type { Redis } from 'ioredis'
import { RunError } from '../fleet/failure.ts'
import type { RedisServer } from '../fleet/redis-server.ts'
import { bulkBody } from './payload.ts'
import type { Stage } from './stage.ts'

const ASIDE = 1
const BODY_COMMANDS = 1000
const REQUESTS = 4

export interface BacklogOptions {
  readonly redis: RedisServer
  readonly app: string
  readonly type: string
  readonly stream: string
  readonly partitions: number
  readonly commands: number
  readonly keys?: number
}

export class Backlog {
  readonly #client: Redis
  readonly #keys: readonly string[]
  readonly commands: number

  private constructor(client: Redis, keys: readonly string[], commands: number) {
    this.#client = client
    this.#keys = keys
    this.commands = commands
  }

  static async fill(stage: Stage, options: BacklogOptions): Promise<Backlog> {
    const { redis, stream, partitions, commands } = options
    const client = stage.client(redis)
    await client.flushall()
    await postCommands(stage, options)
    const names = Array.from({ length: partitions }, (_, partition) => `mr:{${stream}.${partition}}:c`)
    for (const name of names) await client.copy(name, name, 'DB', ASIDE)
    return new Backlog(client, names, commands)
  }

  /** Everything is as it was when the last command had been accepted, and nobody has read any. */
  async restore(): Promise<void> {
    await this.#client.flushdb()
    await this.#client.select(ASIDE)
    for (const name of this.#keys) await this.#client.copy(name, name, 'DB', 0)
    await this.#client.select(0)
  }
}

/** Posts as many commands as an API of its own takes them, and ends that. */
export async function postCommands(
  stage: Stage,
  { redis, app, type, commands, keys }: Omit<BacklogOptions, 'stream' | 'partitions'>,
): Promise<void> {
  const api = await stage.role('api', { redis, app })
  const url = `${api.told('public')}/v1/commands`
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < commands) {
      stage.signal.throwIfAborted()
      const [from, count] = [next, Math.min(BODY_COMMANDS, commands - next)]
      next += count
      await post(url, bulkBody(type, from, count, keys), stage.signal)
    }
  }
  await Promise.all(Array.from({ length: REQUESTS }, lane))
  await stage.end(api)
}

async function post(url: string, body: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const headers = { 'content-type': 'application/x-ndjson' }
    const answer = await fetch(url, { method: 'POST', headers, body, signal })
    const text = await answer.text()
    if (answer.status === 202) return
    if (answer.status !== 503)
      throw new RunError('failed', `The API answered ${answer.status}: ${text.slice(0, 300)}`)
    await Bun.sleep(20)
  }
}
