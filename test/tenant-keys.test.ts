/**
 * What a tenant changes in bytes, hashes and keys; and that without one every stored byte is what it was before there were any. The
 * figures were taken from the version before.
 */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { idempotencyMark } from '../src/commands/idempotency.ts'
import { isTenantName, NO_TENANT } from '../src/contracts/tenant.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { isOfTenant, scopedKey } from '../src/policies/scoped-key.ts'
import { CommandIds } from '../src/redis/command-id.ts'
import { decodeEntry, encodeCopy, packEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { keyFromStored, storedKey } from '../src/redis/view-keys.ts'

const tenantName = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,62}$/)
const someTenant = fc.oneof(fc.constant(NO_TENANT), tenantName)
const userKey = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string(),
  fc.constantFrom('acme/x', 'ÿacme/x', '\u0000x'),
)

const full = {
  ...{ type: 'order.place', version: 3, atMs: 1_700_000_000_123, key: 'o-1', trace: Buffer.alloc(25, 7) },
  ...{ tickMs: 5, expiresAtMs: 9, trail: { attempts: 1, level: 0, redrives: 0, failures: [] } },
}
const bare = {
  type: 'a',
  version: 1,
  atMs: 1,
  key: '',
  trace: undefined,
  tickMs: undefined,
  trail: undefined,
}
const FULL =
  '02021f0003018bcfe5687b0b6f726465722e706c616365036f2d31070707070707070707070707070707070707070707070707070000000000050000000000090028de0004a8617474656d70747301a56c6576656c00a8726564726976657300a86661696c75726573907b226e223a317d'

describe('without a tenant', () => {
  test('entries, idempotency records, partitions and keys are as they were', () => {
    expect(packEntry(full, { n: 1 }).blob.toString('hex')).toBe(FULL)
    expect(packEntry({ ...full, tenant: NO_TENANT }, { n: 1 }).blob.toString('hex')).toBe(FULL)
    expect(packEntry(bare, 'x').blob.toString('hex')).toBe('01020000010000000000010161227822')
    const { digest } = idempotencyMark(NO_TENANT, 'key-1', Buffer.alloc(8))
    expect(digest.toString('hex')).toBe('523954bbcedbb1791d7bbf5da4e3d1fd')
    expect(['a', 'b', 'order-17', 'ü'].map((key) => partitionOf(key, 16))).toEqual([6, 15, 5, 12])
    expect(partitionKeys('s', 0).aggregate('cart', 'c/1:x')).toBe('mr:{s.0}:a:cart:c/1:x')
    expect(storedKey(scopedKey(NO_TENANT, 'acme/x'))).toBe('acme/x')
  })

  test('an entry of the version before is read, and has none', () => {
    const entry = decodeEntry(Buffer.from(FULL, 'hex'))
    expect(entry).toMatchObject({ ...full, tenant: NO_TENANT })
    expect(unpackPayloadOf(entry)).toEqual({ n: 1 })
  })
})

describe('with a tenant', () => {
  test('an entry comes back with it, whatever else it has, and so does every copy', () => {
    fc.assert(
      fc.property(
        someTenant,
        userKey,
        fc.boolean(),
        fc.boolean(),
        fc.jsonValue(),
        (tenant, key, timed, tried, payload) => {
          fc.pre(Buffer.byteLength(key) <= 255 && key.isWellFormed())
          const trail = tried ? full.trail : undefined
          const envelope = { ...bare, key, tenant, tickMs: timed ? 77 : undefined, trail }
          const entry = decodeEntry(packEntry(envelope, payload).blob)
          expect(entry).toMatchObject({ key, tenant, tickMs: envelope.tickMs, type: 'a' })
          const copy = decodeEntry(encodeCopy(entry, { trail: full.trail }))
          expect(copy).toMatchObject({ key, tenant, trail: full.trail })
          expect(unpackPayloadOf(copy)).toEqual(unpackPayloadOf(entry))
        },
      ),
    )
  })

  test('an entry has a flag that versions which know no tenants refuse to read', () => {
    const { blob } = packEntry({ ...bare, tenant: 'acme' }, 'x')
    expect((blob[2] ?? 0) & ~31).toBe(32)
  })

  test('ids, idempotency records, aggregates and partitions are other ones than anybody else’s', () => {
    const ids = new CommandIds(Buffer.from('secret'))
    fc.assert(
      fc.property(someTenant, someTenant, userKey, userKey, (one, other, a, b) => {
        fc.pre(one !== other)
        const id = ids.format('orders', 3, 'e1-2', one)
        expect(ids.parse(id, one)).toEqual({ stream: 'orders', partition: 3, token: 'e1-2' })
        expect(() => ids.parse(id, other)).toThrow('No such command.')
        expect(ids.locate(id)).toEqual({ stream: 'orders', partition: 3, token: 'e1-2' })
        const mark = (tenant: string) => idempotencyMark(tenant, a, Buffer.alloc(8)).digest.toString('hex')
        expect(mark(one)).not.toBe(mark(other))
        const keys = partitionKeys('s', 0)
        expect(keys.aggregate('cart', a, one)).not.toBe(keys.aggregate('cart', b, other))
      }),
    )
    expect(() => ids.parse(ids.format('orders', 3, 'e1-2', 'default'))).toThrow('No such command.')
    expect(() => ids.parse(ids.format('orders', 3, 'e1-2'), 'default')).toThrow('No such command.')
    const spread = new Set(Array.from({ length: 50 }, (_, n) => partitionOf('key', 8, `t-${n}`)))
    expect(spread.size).toBe(8)
  })

  test('view keys are nobody else’s, come back as they were, and stand together behind all that have none', () => {
    const bytes = (key: string) => {
      const stored = storedKey(key)
      return typeof stored === 'string' ? Buffer.from(stored) : stored
    }
    fc.assert(
      fc.property(someTenant, someTenant, userKey, userKey, (one, other, a, b) => {
        fc.pre(a.isWellFormed() && b.isWellFormed())
        const [x, y] = [scopedKey(one, a), scopedKey(other, b)]
        expect(x === y).toBe(one === other && a === b)
        expect(bytes(x).equals(bytes(y))).toBe(x === y)
        expect(keyFromStored(bytes(x))).toBe(x)
        expect(isOfTenant(x)).toBe(one !== NO_TENANT)
        if (one === NO_TENANT && other !== NO_TENANT) expect(Buffer.compare(bytes(x), bytes(y))).toBe(-1)
        if (one !== NO_TENANT && other !== NO_TENANT && one !== other) {
          const head = bytes(scopedKey(other, ''))
          expect(bytes(x).subarray(0, head.length).equals(head)).toBe(false)
        }
      }),
    )
  })

  test('names are closed', () => {
    for (const name of ['a', '0', 'acme', 'a-b', 'a'.repeat(63)]) expect(isTenantName(name)).toBe(true)
    const others = [
      '',
      '-a',
      'A',
      'a_b',
      'a.b',
      'a/b',
      'a b',
      'a\n',
      'ä',
      'a'.repeat(64),
      undefined,
      1,
      '}x{',
    ]
    for (const name of others) expect(isTenantName(name)).toBe(false)
  })
})
