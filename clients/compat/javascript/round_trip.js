// KafkaJS: topics, every codec, an idempotent producer, a group, configurations, record and topic deletion.
const { Kafka, CompressionTypes, CompressionCodecs, logLevel, ConfigResourceTypes } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4js')
const xxh32 = require('lz4js/xxh32')
const { ZstdCodec } = require('zstd-codec')
const { randomBytes } = require('crypto')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec

// lz4js marks its blocks as linked, which Kafka refuses; one block alone is independent, so the mark is set right.
function lz4Frame(data) {
  const frame = lz4.compress(data)
  frame[4] |= 0x20
  frame[6] = (xxh32.hash(0, frame, 4, 2) >> 8) & 0xff
  return Buffer.from(frame)
}

CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4Frame(encoder.buffer),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})

const zstd = new Promise(resolve => ZstdCodec.run(module => resolve(new module.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async buffer => Buffer.from((await zstd).decompress(buffer)),
})

const server = process.argv[2]
const run = randomBytes(4).toString('hex')
const topic = `javascript-${run}`
const groupId = `javascript-group-${run}`
const COUNT = 50
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
const total = Object.keys(codecs).length * COUNT
const kafka = new Kafka({ clientId: 'compat', brokers: [server], logLevel: logLevel.NOTHING, retry: { retries: 8 } })
const admin = kafka.admin()
let passed = 0
let failed = 0

function check(name, ok, detail = '') {
  if (ok) passed++
  else {
    failed++
    console.log(`FAILED ${name} ${detail}`)
  }
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

function expected() {
  return Object.keys(codecs).flatMap(codec =>
    Array.from({ length: COUNT }, (_, i) => ({
      key: `${codec}-${i}`,
      value: `value ${i} `.repeat(20),
      headers: { codec, again: ['1', '2'], empty: '' },
    })),
  )
}

function plain(message) {
  const headers = {}
  for (const [name, value] of Object.entries(message.headers)) {
    headers[name] = Array.isArray(value) ? value.map(String) : String(value)
  }
  return { key: String(message.key), value: String(message.value), headers }
}

async function produce() {
  const created = await admin.createTopics({
    topics: [{ topic, numPartitions: 1, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '7200000' }] }],
  })
  check('topic is created', created)
  const offsets = []
  for (const [name, compression] of Object.entries(codecs)) {
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    const messages = expected().filter(m => m.key.startsWith(`${name}-`))
    for (let at = 0; at < COUNT; at += 10) {
      const [answer] = await producer.send({ topic, compression, messages: messages.slice(at, at + 10) })
      offsets.push(Number(answer.baseOffset))
    }
    await producer.disconnect()
  }
  check('offsets in order', offsets.every((offset, i) => offset === i * 10), offsets.join())
}

// Reads `count` messages from where the group stands, then calls `then` with the running consumer.
async function read(count, then) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const messages = []
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => void messages.push(message) })
  for (let i = 0; i < 300 && messages.length < count; i++) await pause(100)
  await then(consumer, messages)
  await consumer.disconnect()
}

async function consume() {
  await read(total, async (consumer, messages) => {
    check('content, order and headers', JSON.stringify(messages.map(plain)) === JSON.stringify(expected()), messages.length)
    await consumer.commitOffsets([{ topic, partition: 0, offset: '120', metadata: 'half way' }])
  })
  await read(1, async (consumer, messages) => {
    check('resumes at the commit', messages.length > 0 && messages[0].offset === '120', messages[0] && messages[0].offset)
    const { groups } = await admin.listGroups()
    check('group is listed', groups.some(g => g.groupId === groupId))
    const described = (await admin.describeGroups([groupId])).groups[0]
    check('group is stable with one member', described.state === 'Stable' && described.members.length === 1, described.state)
  })
  const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] })
  check('admin reads offsets', offsets.partitions[0].offset === '120' && offsets.partitions[0].metadata === 'half way', JSON.stringify(offsets))
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '10' }] })
  check('admin resets offsets', (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0].offset === '10')
  await admin.deleteGroups([groupId])
  check('group is gone', !(await admin.listGroups()).groups.some(g => g.groupId === groupId))
}

async function retention() {
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }], includeSynonyms: true })
  const entries = Object.fromEntries(resources[0].configEntries.map(e => [e.configName, e.configValue]))
  return entries
}

async function administer() {
  check('configs are reported', (await retention())['retention.ms'] === '7200000' && (await retention())['cleanup.policy'] === 'delete')
  await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
  await pause(500)
  check('config is altered', (await retention())['retention.ms'] === '3600000')
  check('cluster', (await admin.describeCluster()).brokers.length === 1)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  await pause(500)
  check('three partitions', (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 3)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '100' }] })
  const offsets = await admin.fetchTopicOffsets(topic)
  check('records are deleted', offsets.find(o => o.partition === 0).low === '100', JSON.stringify(offsets))
  await admin.deleteTopics({ topics: [topic] })
  await pause(500)
  check('topic is gone', !(await admin.listTopics()).includes(topic))
}

async function main() {
  await admin.connect()
  for (const part of [produce, consume, administer]) {
    try {
      await part()
    } catch (error) {
      check(part.name, false, error.stack)
    }
  }
  await admin.disconnect()
  console.log(`${passed} passed, ${failed} failed`)
  process.exit(failed ? 1 : 0)
}

main().catch(error => {
  console.log(`FAILED to reach the broker ${error.message}\n${passed} passed, ${failed + 1} failed`)
  process.exit(1)
})
