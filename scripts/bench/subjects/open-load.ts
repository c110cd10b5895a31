/**
 * An open loop: commands go out at the moments of a timetable, each in a request of its own, whatever became of those before
 * (see `send-times.ts`). A request that finds no free connection waits for one, and its time runs.
 *
 *   to be sent ─▶ sent ─▶ 202 ─▶ (of a sample) GET its view, every ms, until it is there
 *
 * When its handler started stands in the view; all views are read when everything is over. So the moment of a start is the
 * handler's own, and that of a readable view is seen from outside, late by at most one look: a millisecond and an answer.
 * Clocks are this machine's, the same in all processes.
 */
import { HttpLane } from '../http-lane.ts'
import type { Latencies, OpenLoadInput, OpenLoadResult } from '../open-load.ts'
import { orderLine } from '../payload.ts'
import { ProcessorTime } from '../processor-time.ts'
import { RequestTemplate } from '../request-template.ts'
import { dueBy, sendTimes } from '../send-times.ts'
import { quantile } from '../statistics.ts'
import { input, tellReady, tellResult } from './_subject.ts'

const { port, type, projection, ratePerS, seconds, seed, connections, phase, processes } =
  input<OpenLoadInput>()

const TICK_MS = 1
const SAMPLES_PER_S = 250
const PATIENCE_MS = 20_000
const PHASE_NUMBERS = 100_000_000
const ACCEPTED = 202
const FOUND = 200

const times = sendTimes(ratePerS, seconds, seed)
const firstNumber = phase * PHASE_NUMBERS
const sampleEvery = Math.max(1, Math.round(ratePerS / SAMPLES_PER_S))
const [sentMs, acceptedMs, viewMs] = [0, 1, 2].map(() => new Float64Array(times.length))
if (sentMs === undefined || acceptedMs === undefined || viewMs === undefined) throw new RangeError()

function fail(what: string): never {
  console.error(what)
  process.exit(1)
}

/** A server closes who is idle: lanes take turns, so that none is, until everything is answered. */
const openLane = (): Promise<HttpLane> =>
  HttpLane.open(port, () => {
    if (!over) fail('The server closed a connection.')
  })

interface Poster {
  readonly lane: HttpLane
  /** Each has bytes of its own: those of a request may still be on their way. */
  readonly template: RequestTemplate
}

const posters: Poster[] = await Promise.all(
  Array.from({ length: connections }, async () => ({
    lane: await openLane(),
    template: RequestTemplate.single(type),
  })),
)
const readers: HttpLane[] = await Promise.all(Array.from({ length: connections }, openLane))
/** Sampled commands that wait for a connection to be looked for. */
const sought: number[] = []
let [due, sent, accepted, seen, samples] = [0, 0, 0, 0, 0]
let startMs = 0

let over = false

const nowMs = (): number => performance.now() - startMs

function sendDue(): void {
  due = dueBy(times, nowMs(), due)
  while (sent < due) {
    const poster = posters.shift()
    if (poster === undefined) return
    const i = sent
    sent += 1
    sentMs?.fill(nowMs(), i, i + 1)
    poster.lane.send(poster.template.numbered(firstNumber + i), (status) => {
      if (status !== ACCEPTED) fail(`A command was answered ${status}.`)
      acceptedMs?.fill(nowMs(), i, i + 1)
      accepted += 1
      posters.push(poster)
      if (i % sampleEvery === 0) seek(i)
      if (sent < due) sendDue()
    })
  }
}

function seek(i: number): void {
  samples += 1
  const lane = readers.shift()
  if (lane === undefined) sought.push(i)
  else look(lane, i)
}

function look(lane: HttpLane, i: number): void {
  const path = `/v1/views/${projection}/${orderLine(firstNumber + i).order}`
  lane.send(Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`), (status) => {
    if (status !== FOUND) {
      setTimeout(() => look(lane, i), TICK_MS)
      return
    }
    viewMs?.fill(nowMs(), i, i + 1)
    seen += 1
    const next = sought.shift()
    if (next === undefined) readers.push(lane)
    else look(lane, next)
  })
}

/** When each handler started, by the number of its command in the timetable. */
async function readStarts(): Promise<Float64Array> {
  const starts = new Float64Array(times.length)
  let cursor: string | null = ''
  while (cursor !== null) {
    const from: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`
    const url = `http://127.0.0.1:${port}/v1/views/${projection}?limit=500&prefix=ord-${phase}${from}`
    const page = (await (await fetch(url)).json()) as Page
    for (const { key, value } of page.data) {
      starts[Number(key.slice('ord-'.length)) - firstNumber] =
        value.startedAtMs - performance.timeOrigin - startMs
    }
    cursor = page.page.next
  }
  return starts
}

interface Page {
  readonly data: readonly { readonly key: string; readonly value: { readonly startedAtMs: number } }[]
  readonly page: { readonly next: string | null }
}

/** @throws RangeError when something never happened */
function latencies(moments: Float64Array, every = 1): Latencies {
  const taken: number[] = []
  for (let i = 0; i < times.length; i += every) {
    const atMs = moments[i] ?? 0
    if (atMs === 0) throw new RangeError(`Command ${i} of ${times.length} has no such moment.`)
    taken.push(atMs - (times[i] ?? 0))
  }
  const at = (share: number): number => Number(quantile(taken, share).toFixed(2))
  return { count: taken.length, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) }
}

tellReady({})
startMs = performance.now()
const used = new ProcessorTime({ load: process.pid, ...processes })
while (sent < times.length) {
  sendDue()
  await Bun.sleep(TICK_MS)
}
const cores = used.cores()
const endMs = nowMs() + PATIENCE_MS
while (accepted < times.length || seen < samples) {
  if (nowMs() > endMs) fail(`${times.length - accepted} commands have no answer, ${samples - seen} no view.`)
  await Bun.sleep(TICK_MS)
}
over = true
tellResult({
  accepted: latencies(acceptedMs),
  handler: latencies(await readStarts()),
  view: latencies(viewMs, sampleEvery),
  sent: latencies(sentMs),
  cores,
} satisfies OpenLoadResult)
process.exit(0)
