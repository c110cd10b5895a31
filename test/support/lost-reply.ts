/** A reply that never comes: the script runs on the server, then the connection dies under it. */
import { spyOn } from 'bun:test'
import type { RedisLink } from '../../src/redis/connection.ts'

/**
 * The next script of this connection is run by Redis, whose answer is thrown away; the connection is then dialled again, and
 * the caller hears what it would hear from the network.
 */
export function loseNextReply(link: RedisLink): void {
  const client = link.client
  const call = client.callBuffer.bind(client)
  const spy = spyOn(client, 'callBuffer').mockImplementation(async (...command: unknown[]) => {
    const run = call as (...words: unknown[]) => Promise<unknown>
    await run(...command)
    spy.mockRestore()
    client.disconnect(true)
    return await new Promise<never>(() => undefined)
  })
}
