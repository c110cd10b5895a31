/** Commands of a test: stored, delivered and ended one by one, with the real scripts but without a worker. */
import type { CommandIds } from '../../src/redis/command-id.ts'
import { appendPlain, cancelCommand } from '../../src/redis/command-log.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { GROUP, type PartitionKeys } from '../../src/redis/keys.ts'
import { sharedMembership } from '../../src/redis/membership.ts'
import { packPayload } from '../../src/redis/payload-codec.ts'
import { settle } from '../../src/redis/settlements.ts'
import { type EventSource, eventBlob, type TestEvent } from './event-source.ts'
import { lyingEntry } from './lying-entries.ts'

export interface TestCommand {
  readonly id: string
  readonly partition: number
  readonly token: string
}

const CONSUMER = 'test'

export class CommandSource {
  readonly #link: RedisLink
  readonly #ids: CommandIds
  readonly #source: EventSource

  constructor(link: RedisLink, ids: CommandIds, source: EventSource) {
    this.#link = link
    this.#ids = ids
    this.#source = source
  }

  async accept(key: string): Promise<TestCommand> {
    const partition = this.#source.partition(key)
    const keys = this.#source.keys(partition)
    await this.#link.run('ensure-group', [keys.commands, keys.ready, keys.floors], [GROUP])
    const [token = ''] = await appendPlain(this.#link, keys, [
      lyingEntry(eventBlob({ type: 'test.command', key, payload: 1 })),
    ])
    return { id: this.#ids.format(keys.stream, partition, token), partition, token }
  }

  async deliver({ partition }: TestCommand): Promise<void> {
    const { commands } = this.#source.keys(partition)
    await this.#link.use('a delivery', (client) =>
      client.xreadgroup('GROUP', GROUP, CONSUMER, 'COUNT', '100', 'STREAMS', commands, '>'),
    )
  }

  async finish(command: TestCommand, events: readonly TestEvent[]): Promise<void> {
    const keys = this.#keys(command)
    const ref = {
      source: 'commands',
      entryId: command.token.slice(1),
      token: command.token,
      level: 0,
    } as const
    const effects = { events: events.map(eventBlob), followUps: [], append: undefined, record: '' as const }
    await settle(this.#link, sharedMembership(keys, CONSUMER), {
      plain: [],
      successes: [{ ref, ...effects }],
      failures: [],
    })
  }

  async kill(command: TestCommand): Promise<void> {
    const ref = {
      source: 'commands',
      entryId: command.token.slice(1),
      token: command.token,
      level: 0,
    } as const
    const blob = eventBlob({ type: 'test.command', key: 'x', payload: 1 })
    const failure = { ref, move: 'dead', delayMs: 0, blob, record: packPayload({ error: 'no' }) } as const
    await settle(this.#link, sharedMembership(this.#keys(command), CONSUMER), {
      plain: [],
      successes: [],
      failures: [failure],
    })
  }

  async cancel(command: TestCommand): Promise<boolean> {
    return await cancelCommand(this.#link, this.#keys(command), command.token, packPayload({}))
  }

  #keys({ partition }: TestCommand): PartitionKeys {
    return this.#source.keys(partition)
  }
}
