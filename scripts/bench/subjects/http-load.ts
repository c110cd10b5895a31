/**
 * A closed loop of HTTP requests over raw sockets: each connection is kept, and sends its next request when the last one
 * is answered. Counts answers by status from the end of the warm-up on, and the processor time of everybody meanwhile.
 */
import type { Socket } from 'bun'
import { HttpFrames } from '../http-frames.ts'
import type { HttpLoadInput, HttpLoadResult } from '../http-load.ts'
import { ProcessorTime } from '../processor-time.ts'
import { RequestTemplate } from '../request-template.ts'
import { input, tellReady, tellResult } from './_subject.ts'

const { port, connections, warmMs, measureMs, request, firstNumber, processes } = input<HttpLoadInput>()

const statuses = new Map<number, number>()
let number = firstNumber
let closed = 0
let over = false

function template(): RequestTemplate {
  switch (request.kind) {
    case 'single':
      return RequestTemplate.single(request.type)
    case 'bulk':
      return RequestTemplate.bulk(request.type, request.count)
    case 'get':
      return new RequestTemplate({ method: 'GET', path: request.path })
    default:
      return request satisfies never
  }
}

/** One connection: what it sends, and what of that did not go out at once. */
class Loop {
  readonly #template: RequestTemplate = template()
  readonly #frames: HttpFrames
  #socket: Socket | undefined
  #unsent: Buffer | undefined

  constructor() {
    this.#frames = new HttpFrames((status) => {
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      if (!over) this.#next()
    })
  }

  async open(): Promise<void> {
    this.#socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_, bytes) => this.#frames.push(bytes),
        drain: () => this.#write(this.#unsent),
        close: () => {
          if (!over) closed += 1
        },
      },
    })
  }

  start(): void {
    this.#next()
  }

  #next(): void {
    const bytes = this.#template.numbered(number)
    number += this.#template.numbers
    this.#write(bytes)
  }

  #write(bytes: Buffer | undefined): void {
    if (bytes === undefined) return
    const written = this.#socket?.write(bytes) ?? 0
    this.#unsent = written < bytes.length ? bytes.subarray(Math.max(0, written)) : undefined
  }
}

const loops = Array.from({ length: connections }, () => new Loop())
await Promise.all(loops.map((loop) => loop.open()))
tellReady({})
for (const loop of loops) loop.start()
await Bun.sleep(warmMs)
statuses.clear()
const startMs = performance.now()
const used = new ProcessorTime({ load: process.pid, ...processes })
await Bun.sleep(measureMs)
const elapsedS = (performance.now() - startMs) / 1000
const cores = used.cores()
over = true
tellResult({
  elapsedS,
  statuses: Object.fromEntries(statuses),
  closed,
  nextNumber: number,
  cores,
} satisfies HttpLoadResult)
process.exit(0)
