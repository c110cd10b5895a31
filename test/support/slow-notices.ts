/** Connections whose subscriber hears everything in order, but late: as over a slow network. */
import { type ConnectionRole, type RedisLink, RedisLinks } from '../../src/redis/connection.ts'

export class SlowNoticeLinks extends RedisLinks {
  delayMs = 0

  override open(role: ConnectionRole): RedisLink {
    const link = super.open(role)
    if (role !== 'subscriber') return link
    const { client } = link
    const on = client.on.bind(client)
    const slow = (event: string, listener: (...values: unknown[]) => void) => {
      if (event !== 'messageBuffer') return on(event, listener)
      let heard = Promise.resolve()
      return on(event, (...values: unknown[]) => {
        const due = Bun.sleep(this.delayMs)
        heard = heard.then(() => due).then(() => listener(...values))
      })
    }
    Object.defineProperty(client, 'on', { value: slow })
    return link
  }
}
