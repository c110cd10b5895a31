/** What only the owner of a server asks of it: to write eagerly, and to end. */
import type { RedisLink } from './connection.ts'

/** Makes a running server keep the durability that was asked for. */
export async function setFsync(link: RedisLink, durability: 'everysec' | 'fsync'): Promise<void> {
  const appendfsync = durability === 'fsync' ? 'always' : 'everysec'
  await link.use('CONFIG SET', (client) =>
    client.call('CONFIG', 'SET', 'appendfsync', appendfsync, 'no-appendfsync-on-rewrite', 'no'),
  )
}

/**
 * Asks the server to write everything and end. The server answers by closing the connection, so no answer is waited for:
 * see for yourself that the process is gone.
 */
export function askToShutDown(link: RedisLink): void {
  link.client.shutdown().catch(() => undefined)
}
