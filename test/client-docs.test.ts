/** What the README and docs/client.md show of the client runs as printed. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { filesMatching, root } from './source-files.ts'
import { makeProject } from './support/project.ts'

setDefaultTimeout(60_000)

async function blocksOf(path: string): Promise<string[]> {
  const text = await Bun.file(join(root, path)).text()
  return [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, body = '']) => body)
}

/** Runs a block beside a workers folder whose Millrace is up, and answers what it printed. */
async function run(block: string, files: Readonly<Record<string, string>>): Promise<string> {
  await using project = await makeProject({ ...files, 'send.ts': block })
  const millrace = project.start()
  await millrace.untilReady()
  try {
    const text = block.replaceAll('http://127.0.0.1:8080', millrace.line('public'))
    await Bun.write(join(project.folder, 'send.ts'), text)
    const { folder } = project
    const child = Bun.spawn([process.execPath, 'send.ts'], { cwd: folder, stdout: 'pipe', stderr: 'pipe' })
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
    if (code !== 0) throw new Error(`exit ${code}: ${out}${err}`)
    return out
  } finally {
    await millrace.stop()
  }
}

test('the README sends to its own handler and reads the view', async () => {
  const [handler = '', sending = ''] = await blocksOf('README.md')
  const out = await run(sending, { 'workers/greetings.ts': handler })
  expect(out).toContain('sent: true')
  expect(out).toMatch(/count: 1,\s+last: "hello"/)
})

test('the page about the client places an order and reads it', async () => {
  const [sending = ''] = await blocksOf('docs/client.md')
  const files: Record<string, string> = {}
  for (const path of filesMatching('workers/orders/*.ts'))
    files[path] = await Bun.file(join(root, path)).text()
  const out = await run(sending, files)
  expect(out).toContain('orderId: "o-1"')
})
