/**
 * The commands that most scenarios post: each has a row, a key and a sequence number within the key, and ends with one
 * event. What else it does follows from its type, so that every run of a row does the same.
 *
 *   step.plain   done at once, in batches of up to 200
 *   step.slow    a batch of up to 20 that takes 10 to 40 ms
 *   step.retry   asks for another run once or twice, by its row, then done
 *   step.split   done, with a follow-up command to a stream of its own, whose key is another
 *   step.block   keeps the event loop busy for as long as it says, on its first run in a fleet
 *   step.fragile in batches of up to 200; ends its own process by SIGKILL, whenever one of them says so
 */
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineStream,
  done,
  type HandledCommand,
  type HandlerDefinition,
  retry,
} from 'millrace'
import { z } from 'zod'
import { journaled, type Numbered } from '../_journal.ts'

const KEEP_BYTES = 16 * 1024 ** 3
const retention = { eventsBytesMax: KEEP_BYTES }

export const steps = defineStream({ name: 'steps', partitions: 4, retention })
export const echoes = defineStream({ name: 'echoes', partitions: 2, retention })

const numbered = z.object({ n: z.int().min(0), k: z.int().min(0), s: z.int().min(0) })
const key = ({ k }: Numbered): string => `key-${k}`

export const stepDone = defineEvent({ type: 'step.done', payload: numbered })
export const echoDone = defineEvent({ type: 'echo.done', payload: numbered })

export const plainStep = defineCommand({ type: 'step.plain', stream: steps, payload: numbered, key })
export const slowStep = defineCommand({ type: 'step.slow', stream: steps, payload: numbered, key })
export const retriedStep = defineCommand({ type: 'step.retry', stream: steps, payload: numbered, key })
export const splitStep = defineCommand({ type: 'step.split', stream: steps, payload: numbered, key })
export const fragileStep = defineCommand({
  type: 'step.fragile',
  stream: steps,
  payload: numbered.extend({ crashes: z.boolean().optional() }),
  key,
})
export const blockingStep = defineCommand({
  type: 'step.block',
  stream: steps,
  payload: numbered.extend({ ms: z.int().min(0).max(60_000) }),
  key,
})
export const echo = defineCommand({ type: 'echo.mark', stream: echoes, payload: numbered, key })

const RETRY_DELAY_MS = 20
/** Followed by another stream's key, so that the follow-up has to cross partitions. */
const ECHO_KEYS = 64

type Step = HandledCommand<Numbered>

function finish(step: Step): ReturnType<typeof done> {
  const { n, k, s } = step.payload
  step.emit(stepDone, { n, k, s })
  return done()
}

export const onPlain: HandlerDefinition = defineBatchHandler(
  plainStep,
  journaled((batch) => batch.map(finish)),
  { batchCountMax: 200 },
)

export const onSlow: HandlerDefinition = defineBatchHandler(
  slowStep,
  journaled(async (batch) => {
    await Bun.sleep(10 + ((batch[0]?.payload.n ?? 0) % 31))
    return batch.map(finish)
  }),
  { batchCountMax: 20 },
)

export const onRetried: HandlerDefinition = defineBatchHandler(
  retriedStep,
  journaled((batch) =>
    batch.map((step) => {
      const { n } = step.payload
      return step.attempt > 1 + (n % 2)
        ? finish(step)
        : retry('by design', { delayMs: RETRY_DELAY_MS * (n % 3) })
    }),
  ),
  { batchCountMax: 100, attemptsMax: 10 },
)

export const onSplit: HandlerDefinition = defineBatchHandler(
  splitStep,
  journaled((batch) =>
    batch.map((step) => {
      const { n } = step.payload
      step.send(echo, { n, k: n % ECHO_KEYS, s: 0 })
      return finish(step)
    }),
  ),
  { batchCountMax: 50 },
)

export const onBlocking: HandlerDefinition = defineBatchHandler(
  blockingStep,
  journaled((batch) => {
    const longest = Math.max(...batch.map((step) => step.payload.ms))
    const endMs = performance.now() + longest
    while (performance.now() < endMs) {
      // Busy, as a handler that parses a huge document is.
    }
    return batch.map(finish)
  }),
  { batchCountMax: 20 },
)

export const onFragile: HandlerDefinition = defineBatchHandler(
  fragileStep,
  journaled((batch) => {
    if (batch.some((step) => step.payload.crashes === true)) process.kill(process.pid, 'SIGKILL')
    return batch.map(finish)
  }),
  { batchCountMax: 200 },
)

export const onEcho: HandlerDefinition = defineBatchHandler(
  echo,
  journaled((batch) =>
    batch.map((mark) => {
      const { n, k, s } = mark.payload
      mark.emit(echoDone, { n, k, s })
      return done()
    }),
  ),
  { batchCountMax: 100 },
)
