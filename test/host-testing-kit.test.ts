/** The public test kit, used as an application would use it. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import {
  defineAggregate,
  defineAggregateHandler,
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  done,
  newEvent,
  reject,
  retry,
} from 'millrace'
import { FakeClock, foldEvents, RecordedTelemetry, runAggregateHandler, runHandler } from 'millrace/testing'
import { z } from 'zod'
import { root } from './source-files.ts'
import { makeProject } from './support/project.ts'
import { rejection } from './support/rejection.ts'

const order = z.object({ sku: z.string(), quantity: z.number().int().default(1) })
const placeOrder = defineCommand({ type: 'order.place', payload: order, key: ({ sku }) => sku })
const shipOrder = defineCommand({ type: 'order.ship', payload: order, key: ({ sku }) => sku })
const orderPlaced = defineEvent({ type: 'order.placed', payload: order })

const onPlaceOrder = defineHandler(placeOrder, (command) => {
  command.emit(orderPlaced, command.payload)
  command.send(shipOrder, command.payload, { delayMs: 1000 })
  if (command.payload.quantity === 0) return reject('nothing ordered')
  return command.attempt > 1 ? retry('again') : done({ sku: command.key })
})
const sold = defineProjection({ name: 'sold', initial: () => ({ count: 0 }) }).on(
  orderPlaced,
  ({ payload }) => payload.sku,
  (view, { payload }) => {
    const count = view.count + payload.quantity
    return count > 100 ? null : { count }
  },
)

test('a handler runs on payloads, and only what ended done leaves effects', async () => {
  const run = await runHandler(onPlaceOrder, [{ sku: 'tea' }, { sku: 'salt', quantity: 0 }])
  expect(run.outcomes).toEqual([done({ sku: 'tea' }), reject('nothing ordered')])
  expect(run.events).toMatchObject([
    { type: 'order.placed', key: 'tea', payload: { sku: 'tea', quantity: 1 } },
  ])
  expect(run.sends).toEqual([
    { type: 'order.ship', version: 1, key: 'tea', payload: { sku: 'tea', quantity: 1 }, delayMs: 1000 },
  ])
  expect((await runHandler(onPlaceOrder, [{ sku: 'tea' }], { attempt: 2 })).outcomes).toEqual([
    retry('again'),
  ])
})

test('payloads and events are held to their schemas', async () => {
  const refused = await rejection(runHandler(onPlaceOrder, [{ sku: 1 }]))
  expect(refused).toMatchObject({ code: 'command.invalid', issues: [{ pointer: '#/sku' }] })
})

test('a batch handler sees batches of its size and owes an outcome for each command', async () => {
  const sizes: number[] = []
  const counting = defineBatchHandler(
    placeOrder,
    (batch) => {
      sizes.push(batch.length)
      return batch.map(() => done()).slice(batch.length === 1 ? 1 : 0)
    },
    { batchCountMax: 2 },
  )
  await runHandler(counting, [{ sku: 'a' }, { sku: 'b' }, { sku: 'c' }, { sku: 'd' }])
  expect(sizes).toEqual([2, 2])
  expect((await rejection(runHandler(counting, [{ sku: 'a' }]))).message).toContain(
    'answered 0 outcomes for 1 commands',
  )
})

test('events fold into views, from a run or written down, and a view can be deleted', async () => {
  const { events } = await runHandler(onPlaceOrder, [{ sku: 'tea', quantity: 2 }, { sku: 'salt' }])
  const views = foldEvents(sold, [...events, newEvent(orderPlaced, { sku: 'tea', quantity: 3 })])
  expect(Object.fromEntries(views)).toEqual({ tea: { count: 5 }, salt: { count: 1 } })
  expect(foldEvents(sold, [newEvent(orderPlaced, { sku: 'tea', quantity: 101 })]).size).toBe(0)
})

test('an aggregate decides from what happened before', async () => {
  const stock = defineAggregate({ name: 'stock', initial: () => ({ left: 3 }) }).on(
    orderPlaced,
    (state, payload) => ({
      left: state.left - payload.quantity,
    }),
  )
  const handler = defineAggregateHandler(stock, placeOrder, (state, command) =>
    state.left < command.payload.quantity ? reject('sold out') : [newEvent(orderPlaced, command.payload)],
  )
  const run = await runAggregateHandler<{ left: number }>(
    handler,
    [newEvent(orderPlaced, { sku: 'tea', quantity: 1 })],
    [
      { sku: 'tea', quantity: 2 },
      { sku: 'tea', quantity: 1 },
    ],
  )
  expect(run.outcomes).toEqual([done(), reject('sold out')])
  expect([run.state, run.events.length]).toEqual([{ left: 0 }, 1])
})

test('time moves when the test moves it, and what falls due is called in order', async () => {
  const clock = new FakeClock({ nowMs: 1000 })
  const called: string[] = []
  clock.after(20, () => called.push(`twenty at ${clock.nowMs()}`))
  clock.after(10, () => clock.after(5, () => called.push(`fifteen at ${clock.nowMs()}`)))
  clock.after(12, () => called.push('never')).cancel()
  const slept = clock.sleep(30).then(() => called.push(`thirty at ${clock.nowMs()}`))
  const aborted = new AbortController()
  const woken = clock.sleep(1_000_000, aborted.signal)
  aborted.abort()
  await woken
  await clock.advance(29)
  expect(called).toEqual(['fifteen at 1015', 'twenty at 1020'])
  await clock.advance(1)
  await slept
  expect(called.at(-1)).toBe('thirty at 1030')
})

test('telemetry is kept by name, and a test can wait for it', async () => {
  const telemetry = new RecordedTelemetry()
  const waited = telemetry.until('service.started', (started) => started.length === 2)
  telemetry.listener('service.started', { service: 'a' })
  telemetry.emit('service.started', { service: 'b' })
  await waited
  expect(telemetry.of('service.started')).toEqual([{ service: 'a' }, { service: 'b' }])
  expect((await rejection(telemetry.until('service.stopped', undefined, 20))).message).toStartWith(
    'No service.stopped',
  )
})

test('the example in the documentation passes beside the application that millrace init writes', async () => {
  const [text, visits] = await Promise.all(
    ['docs/testing.md', 'src/cli/templates/visits.ts.txt'].map((path) => Bun.file(join(root, path)).text()),
  )
  const example = /```ts\n(.*?)```/s.exec(text ?? '')?.[1] ?? ''
  await using project = await makeProject({
    'workers/visits.ts': visits ?? '',
    'workers/example.test.ts': example,
  })
  const child = Bun.spawn([process.execPath, 'test'], {
    cwd: project.folder,
    stdout: 'ignore',
    stderr: 'pipe',
  })
  expect(await child.stderr.text()).toContain('1 pass')
  expect(await child.exited).toBe(0)
})
