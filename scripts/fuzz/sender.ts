/** Sends one case and answers what came of it: on a kept connection where the request is whole, else on one of its own. */
import type { FuzzCase } from './cases.ts'
import type { Ground } from './ground.ts'
import { bytesOf, isWhole } from './hostile-request.ts'
import type { Listener } from './routes.ts'
import { Wire, type WireAnswer } from './wire.ts'

/** The longest wait that the product allows a request. */
const ANSWER_LIMIT_MS = 45_000
/** For a request that may never be answered. */
const BROKEN_LIMIT_MS = 400
/** Behind the first answer to it. */
const MORE_LIMIT_MS = 20

export class Sender {
  readonly #ground: Ground
  /** Requests that were sent twice: the first time nothing came back. */
  resent = 0
  readonly #wires = new Map<Listener, Wire>()

  constructor(ground: Ground) {
    this.#ground = ground
  }

  async send({ request, route: { listener } }: FuzzCase): Promise<WireAnswer[]> {
    const port = listener === 'public' ? this.#ground.publicPort : this.#ground.adminPort
    const bytes = bytesOf(request)
    if (!isWhole(request)) {
      const limitMs = request.sending === 'head alone' ? ANSWER_LIMIT_MS : BROKEN_LIMIT_MS
      return await alone(port, bytes, request.sending.endsWith('cut') ? 1 : limitMs)
    }
    const isHead = request.method === 'HEAD'
    let wire = await this.#wire(listener, port)
    wire.send(bytes)
    let answer = await wire.answer(ANSWER_LIMIT_MS, isHead)
    if (answer === undefined && wire.answers > 0) {
      // The server may close a kept connection while the next request is on its way.
      this.resent += 1
      wire = await this.#wire(listener, port)
      wire.send(bytes)
      answer = await wire.answer(ANSWER_LIMIT_MS, isHead)
    }
    const stays = answer?.headers.get('content-type')?.startsWith('text/event-stream') !== true
    if (answer === undefined || !stays || answer.headers.get('connection') === 'close') wire.close()
    return answer === undefined ? [] : [answer]
  }

  close(): void {
    for (const wire of this.#wires.values()) wire.close()
  }

  async #wire(listener: Listener, port: number): Promise<Wire> {
    const known = this.#wires.get(listener)
    if (known !== undefined && !known.isClosed) return known
    known?.close()
    const wire = await Wire.open(port)
    this.#wires.set(listener, wire)
    return wire
  }
}

async function alone(port: number, bytes: Buffer, limitMs: number): Promise<WireAnswer[]> {
  const wire = await Wire.open(port)
  const answers: WireAnswer[] = []
  wire.send(bytes)
  for (let waitMs = limitMs; ; waitMs = MORE_LIMIT_MS) {
    const answer = await wire.answer(waitMs)
    if (answer === undefined) break
    answers.push(answer)
  }
  wire.close()
  return answers
}
