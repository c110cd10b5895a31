/** Opens a client of an API over HTTP: options checked, then the carrier and the client over it. */
import { CarriedClient } from './carried-client.ts'
import type { Client, CommandsOf } from './client.ts'
import { CLIENT_CLOCK, type ClientClock } from './client-clock.ts'
import { type ClientOptions, resolveOptions } from './client-options.ts'
import { HttpCarrier } from './http-carrier.ts'

/**
 * A client of a Millrace API, for Bun, Node and browsers. It holds no connection of its own, so nothing is asked before the first
 * call; `close` it to be sure that everything was sent.
 *
 * With the type of a module of definitions, commands and payloads are checked when they are written:
 *
 *     const client = createClient<typeof import('./workers/orders/commands.ts')>({ url: 'https://commands.example.com' })
 *     const { id } = await client.send('order.place', { orderId: 'o-1', sku: 'tea', quantity: 2 })
 *
 * @throws ClientError `invalid-option`
 */
export function createClient<Definitions = unknown>(options: ClientOptions): Client<CommandsOf<Definitions>> {
  return openHttpClient(options, CLIENT_CLOCK) as unknown as Client<CommandsOf<Definitions>>
}

/** With a clock of the caller's. */
export function openHttpClient(options: ClientOptions, clock: ClientClock): Client {
  const resolved = resolveOptions(options)
  return new CarriedClient(new HttpCarrier(resolved, clock), resolved, clock)
}
