/**
 * Hears what projectors commit, over one subscriber connection, and knows how far that hearing can be trusted.
 *
 * Redis drops notices for a client that is away, without a word. So the feed tells when its connection was lost, and a
 * ping that this process sends to itself through the same connection proves, when it comes back, that everything
 * published before it was sent has arrived.
 */
import type { RedisLink } from './connection.ts'
import { type PartitionKeys, pingChannel } from './keys.ts'
import { type CommitNotice, readCommitNotice } from './view-store.ts'

export interface CommitFeedEvents {
  onCommit(keys: PartitionKeys, reader: string, notice: CommitNotice): void
  /** The ping with this number came back. */
  onPing(number: number): void
  /** Notices may have been missed from now until the next ping that is sent after this. */
  onLost(): void
}

export interface CommitTopic {
  readonly keys: PartitionKeys
  readonly reader: string
}

const CONNECT_WAIT_MS = 5000

export class CommitFeed {
  readonly #subscriber: RedisLink
  readonly #command: RedisLink
  readonly #channel: string
  readonly #topics = new Map<string, CommitTopic>()
  readonly #events: CommitFeedEvents

  /** `processId` is unique in the fleet. */
  constructor(subscriber: RedisLink, command: RedisLink, processId: string, events: CommitFeedEvents) {
    this.#subscriber = subscriber
    this.#command = command
    this.#channel = pingChannel(processId)
    this.#events = events
    subscriber.client.on('messageBuffer', (channel: Buffer, bytes: Buffer) => {
      this.#receive(channel.toString('latin1'), bytes)
    })
    subscriber.client.on('close', () => events.onLost())
  }

  /** Subscribes to everything with one command; ioredis repeats it after a reconnect. */
  async subscribe(topics: readonly CommitTopic[]): Promise<void> {
    for (const topic of topics) this.#topics.set(topic.keys.commits(topic.reader), topic)
    await this.#subscriber.whenReady(CONNECT_WAIT_MS)
    await this.#subscriber.use('commit notices', (client) =>
      client.subscribe(this.#channel, ...this.#topics.keys()),
    )
  }

  async ping(number: number): Promise<void> {
    await this.#command.use('a ping', (client) => client.publish(this.#channel, String(number)))
  }

  #receive(channel: string, bytes: Buffer): void {
    if (channel === this.#channel) {
      this.#events.onPing(Number(bytes.toString('latin1')))
      return
    }
    const topic = this.#topics.get(channel)
    const notice = topic === undefined ? undefined : readCommitNotice(bytes)
    if (topic !== undefined && notice !== undefined) this.#events.onCommit(topic.keys, topic.reader, notice)
  }
}
