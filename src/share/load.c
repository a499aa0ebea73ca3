#include "share/load.h"

#include <string.h>

size_t tide_load_bytes(const struct tide_message *message)
{
    return sizeof(struct tide_load) +
           message->held_count * sizeof(tide_handle) + message->length;
}

uint64_t tide_load_make(tide_handle owner, const struct tide_message *message)
{
    uint64_t block = tide_share_alloc(owner, tide_load_bytes(message));
    if (block == 0)
        return 0;
    struct tide_load *load = tide_commons_at(block);
    load->length = message->length;
    load->held_count = message->held_count;
    for (size_t i = 0; i < message->held_count; i++) {
        load->held[i] = message->held[i];
        tide_object_refer(message->held[i]);
    }
    memcpy(load->held + message->held_count, message->bytes, message->length);
    return block;
}

struct tide_message tide_load_message(const struct tide_load *load)
{
    return (struct tide_message){
        .bytes = (const unsigned char *)(load->held + load->held_count),
        .length = load->length,
        .held = load->held,
        .held_count = load->held_count,
    };
}

void tide_load_free(uint64_t block)
{
    if (block == 0)
        return;
    const struct tide_load *load = tide_commons_at(block);
    for (uint64_t i = 0; i < load->held_count; i++)
        tide_object_unrefer(load->held[i]);
    tide_share_free(block);
}
