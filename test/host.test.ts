/** A whole process: what it says, what it answers, and that nothing of it is left when it has ended. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { defineCommand, defineEvent, defineHandler, defineProjection, done, startMillrace } from 'millrace'
import { RecordedTelemetry } from 'millrace/testing'
import { z } from 'zod'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
})
afterAll(() => redis[Symbol.asyncDispose]())

const note = z.object({ author: z.string(), text: z.string() })
const writeNote = defineCommand({ type: 'note.write', payload: note, key: ({ author }) => author })
const noteWritten = defineEvent({ type: 'note.written', payload: note })
const onWriteNote = defineHandler(writeNote, (command) => {
  command.emit(noteWritten, command.payload)
  return done()
})
const notes = defineProjection({ name: 'notes', initial: () => ({ count: 0 }) }).on(
  noteWritten,
  ({ payload }) => payload.author,
  (view) => ({ count: view.count + 1 }),
)
const definitions = [writeNote, noteWritten, onWriteNote, notes]

async function post(url: string, payload: object): Promise<string> {
  const response = await fetch(`${url}/v1/commands/note.write`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(payload),
  })
  expect(response.status).toBe(202)
  return ((await response.json()) as { id: string }).id
}

async function viewAfter(url: string, key: string, command: string): Promise<unknown> {
  const response = await fetch(`${url}/v1/views/notes/${key}`, { headers: { 'millrace-after': command } })
  expect(response.status).toBe(200)
  return response.json()
}

test('a process started from code takes a command, handles it, shows its view, and ends without a trace', async () => {
  const telemetry = new RecordedTelemetry()
  const millrace = await startMillrace({
    definitions,
    redisUrl: redis.url,
    port: 0,
    adminPort: 0,
    onTelemetry: telemetry.listener,
  })
  const { summary } = millrace
  expect(summary).toMatchObject({
    role: 'all',
    durability: 'everysec',
    counts: { commands: 1, projections: 1 },
  })
  const id = await post(millrace.urls.public ?? '', { author: 'ada', text: 'x' })
  expect(await viewAfter(millrace.urls.public ?? '', 'ada', id)).toMatchObject({ count: 1 })
  await Promise.all([millrace.stop(), millrace.stop()])
  const started = telemetry.of('service.started').map(({ service }) => service)
  const stopped = telemetry.of('service.stopped').map(({ service }) => service)
  expect(stopped).toEqual(started.toReversed())
  expect(telemetry.of('alarm.raised')).toEqual([])
  await expect(fetch(`${millrace.urls.public}/livez`)).rejects.toThrow()
})
