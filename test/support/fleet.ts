/** A small fleet for tests: definitions on a private Redis, commands appended directly, workers in this process. */
import type { AggregateHandlerDefinition } from '../../src/contracts/aggregate.ts'
import type { CommandDefinition } from '../../src/contracts/command.ts'
import type { HandlerDefinition } from '../../src/contracts/handler.ts'
import { SILENT_LOGGER } from '../../src/contracts/logger.ts'
import { buildCatalogue, type Catalogue, type Definition } from '../../src/policies/catalogue.ts'
import { partitionOf } from '../../src/policies/partition.ts'
import type { CommandIds } from '../../src/redis/command-id.ts'
import { appendPlain, type CommandStatus, readStatus } from '../../src/redis/command-log.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { decodeEntry, type Entry, encodeEntry } from '../../src/redis/entry-codec.ts'
import { joinFleet } from '../../src/redis/fleet.ts'
import { partitionKeys } from '../../src/redis/keys.ts'
import { packPayload } from '../../src/redis/payload-codec.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { Consumer } from '../../src/runtime/consumer.ts'
import type { ConsumerOptions } from '../../src/runtime/consumer-options.ts'
import { lyingEntries } from './lying-entries.ts'
import type { TestRedis } from './redis-server.ts'
import { RecordedTelemetry } from './telemetry.ts'

export interface TestFleet {
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly link: RedisLink
  readonly telemetry: RecordedTelemetry
  /** Appends commands of one type; answers tokens with their partitions, in order. */
  append(command: CommandDefinition, payloads: readonly unknown[], version?: number): Promise<Appended[]>
  worker(options?: Partial<ConsumerOptions>, command?: RedisLink): Promise<Consumer>
  status(at: Appended): Promise<CommandStatus>
  /** Events of a partition in order, with the token of the command that caused them. */
  events(stream: string, partition?: number): Promise<{ token: string; entry: Entry }[]>
  deadLetters(stream: string, partition?: number): Promise<{ token: string; entry: Entry }[]>
  pending(stream: string, partition?: number): Promise<number>
}

export interface Appended {
  readonly stream: string
  readonly partition: number
  readonly token: string
}

const OPTIONS: Partial<ConsumerOptions> = { promoteEveryMs: 20, drainLimitMs: 5000 }

export async function testFleet(redis: TestRedis, definitions: readonly Definition[]): Promise<TestFleet> {
  const catalogue = buildCatalogue(definitions)
  const link = await redis.open()
  const ids = await joinFleet(link, catalogue.streams.values())
  const telemetry = new RecordedTelemetry()
  const rows = async (key: string) => {
    const reply = await link.client.xrangeBuffer(key, '-', '+')
    return reply.flatMap(([, fields]) => {
      const pairs: { token: string; entry: Entry }[] = []
      for (let i = 0; i + 1 < fields.length; i += 2) {
        const [token, blob] = [fields[i], fields[i + 1]]
        if (token !== undefined && blob !== undefined)
          pairs.push({ token: token.toString(), entry: decodeEntry(blob) })
      }
      return pairs
    })
  }
  return {
    catalogue,
    ids,
    link,
    telemetry,
    append: async (command, payloads, version = command.version) => {
      const { type, stream } = command
      const partitions = catalogue.streams.get(stream)?.partitions ?? 1
      const placed = payloads.map((payload) => {
        const bytes = packPayload(payload)
        const key = command.key?.(payload) ?? ''
        const nothing = { trace: undefined, tickMs: undefined, trail: undefined }
        const blob = encodeEntry({ type, version, atMs: Date.now(), key, ...nothing }, bytes)
        return { partition: partitionOf(key === '' ? bytes : key, partitions), blob }
      })
      const appended: Appended[] = []
      for (let partition = 0; partition < partitions; partition++) {
        const blobs = placed.filter((item) => item.partition === partition).map((item) => item.blob)
        for (let from = 0; from < blobs.length; from += 500) {
          const tokens = await appendPlain(
            link,
            partitionKeys(stream, partition),
            lyingEntries(blobs.slice(from, from + 500)),
          )
          appended.push(...tokens.map((token) => ({ stream, partition, token })))
        }
      }
      return appended
    },
    worker: async (options = {}, command = undefined) => {
      const consumer = new Consumer({
        links: redis.links,
        command: command ?? (await redis.open()),
        catalogue,
        handlers: plainHandlers(catalogue.handlers),
        ids,
        clock: SYSTEM_CLOCK,
        telemetry,
        logger: SILENT_LOGGER,
        options: { ...OPTIONS, ...options },
      })
      await consumer.start()
      return consumer
    },
    status: ({ stream, partition, token }) => readStatus(link, partitionKeys(stream, partition), token),
    events: (stream, partition = 0) => rows(partitionKeys(stream, partition).events),
    deadLetters: (stream, partition = 0) => rows(partitionKeys(stream, partition).dead),
    pending: async (stream, partition = 0) => {
      const keys = partitionKeys(stream, partition)
      const [commands, ready] = await Promise.all([
        link.client.xpending(keys.commands, 'workers'),
        link.client.xpending(keys.ready, 'workers'),
      ])
      return Number(commands[0]) + Number(ready[0])
    },
  }
}

function plainHandlers(
  handlers: ReadonlyMap<string, HandlerDefinition | AggregateHandlerDefinition>,
): Map<string, HandlerDefinition> {
  const plain = new Map<string, HandlerDefinition>()
  for (const [key, handler] of handlers) if (handler.kind === 'handler') plain.set(key, handler)
  return plain
}
