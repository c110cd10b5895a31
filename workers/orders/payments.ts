/**
 * Taking the money: a step outside, that fails now and then.
 *
 * The card network here is a stand-in whose answers follow from the order's id alone, so every run sees the same
 * failures: of 100 orders about 10 meet a time-out once or twice (retries), and 2 are declined for good (dead letters,
 * whose orders then expire). A declined charge that is redriven with `"method": "invoice"` goes through.
 */
import { defineHandler, done, reject, retry } from 'millrace'
import { chargePayment, confirmPayment } from './commands.ts'

type CardAnswer = 'charged' | 'declined' | 'no answer'

/** What a real one would be asked with `command.idempotencyKey`, so that asking twice charges once. */
export function askCardNetwork(orderId: string, attempt: number): CardAnswer {
  const luck = Bun.hash.xxHash32(orderId) % 100
  if (luck < 2) return 'declined'
  const timeouts = luck < 7 ? 2 : luck < 12 ? 1 : 0
  return attempt <= timeouts ? 'no answer' : 'charged'
}

export const chargeHandler = defineHandler(
  chargePayment,
  (command) => {
    const { orderId, chargeId, amountCents, method } = command.payload
    const answer = method === 'invoice' ? 'charged' : askCardNetwork(orderId, command.attempt)
    switch (answer) {
      case 'declined':
        return reject('The card was declined.')
      case 'no answer':
        return retry(new Error('The card network did not answer.'))
      case 'charged':
        command.send(confirmPayment, { orderId, chargeId, amountCents })
        return done({ chargeId })
      default:
        return answer satisfies never
    }
  },
  { attemptsMax: 4, backoffBaseMs: 200, backoffMaxMs: 5000 },
)
