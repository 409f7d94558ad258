/* A libnvidia-ml.so.1 that tells what a text file says, for tests.
 *
 * The file is named by RBEE_NVML_STUB, else /etc/nvml-stub.conf, and is read anew by each
 * nvmlInit. Its lines, in any order:
 *
 *     driver VERSION
 *     card PCI_ADDRESS BYTES UUID NAME UP TO THE END OF THE LINE
 *     fail FUNCTION CARD CODE     FUNCTION answers CODE; CARD is an index, or * for any or none
 *     hang FUNCTION CARD          FUNCTION never comes back
 *     hang FUNCTION CARD FIFO     ... until somebody opens FIFO for writing
 *
 * FUNCTION is a name without 'nvml' and without '_v2', such as Init or DeviceGetName. Without
 * a file, nvmlInit answers as where there is a library and no driver.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { MOST_CARDS = 512, MOST_RULES = 512, ANY = -1 };

struct card {
    char pci[32], uuid[96], name[1024];
    unsigned long long bytes;
};

struct rule {
    char function[64], fifo[256];
    int card, code, is_hang;
};

struct pci_info { /* nvmlPciInfo_t */
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};

struct memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

static struct card cards[MOST_CARDS];
static struct rule rules[MOST_RULES];
static int card_count, rule_count, initialised;
static char driver[81];

static void read_rule(const char *line, int is_hang)
{
    struct rule *rule = &rules[rule_count];
    char card[16];
    memset(rule, 0, sizeof *rule);
    rule->is_hang = is_hang;
    int fields = is_hang ? sscanf(line, "%*s %63s %15s %255s", rule->function, card, rule->fifo)
                         : sscanf(line, "%*s %63s %15s %d", rule->function, card, &rule->code);
    if (fields < 2 || (!is_hang && fields < 3) || rule_count == MOST_RULES - 1)
        abort(); /* a test with a typing error must not pass */
    rule->card = strcmp(card, "*") ? atoi(card) : ANY;
    rule_count++;
}

static void read_card(const char *line)
{
    struct card *card = &cards[card_count];
    if (card_count == MOST_CARDS - 1 ||
        sscanf(line, "card %31s %llu %95s %1023[^\n]", card->pci, &card->bytes, card->uuid, card->name) != 4)
        abort();
    card_count++;
}

static int read_file(void)
{
    const char *path = getenv("RBEE_NVML_STUB");
    FILE *file = fopen(path ? path : "/etc/nvml-stub.conf", "r");
    char line[2048];
    if (!file)
        return DRIVER_NOT_LOADED;
    card_count = rule_count = 0;
    strcpy(driver, "0");
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "driver ", 7))
            sscanf(line, "driver %80[^\n]", driver);
        else if (!strncmp(line, "card ", 5))
            read_card(line);
        else if (!strncmp(line, "fail ", 5) || !strncmp(line, "hang ", 5))
            read_rule(line, line[0] == 'h');
        else if (line[0] != '\n' && line[0] != '#')
            abort();
    }
    fclose(file);
    return SUCCESS;
}

/* What the file has this call do: its answer, after hanging if it must. */
static int meet(const char *function, int card)
{
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->function, function) || (rule->card != ANY && rule->card != card))
            continue;
        if (!rule->is_hang)
            return rule->code;
        if (!rule->fifo[0])
            for (;;)
                pause();
        int fifo = open(rule->fifo, O_RDONLY); /* comes back when a writer comes */
        if (fifo >= 0)
            close(fifo);
    }
    return SUCCESS;
}

static int enter(const char *function, int card)
{
    return initialised ? meet(function, card) : UNINITIALIZED;
}

static int say(char *buffer, unsigned length, const char *text)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

static int number(const struct card *card)
{
    return (int)(card - cards);
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = read_file();
    if (code == SUCCESS)
        code = meet("Init", ANY);
    if (code == SUCCESS)
        initialised++;
    return code;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    int code = enter("Shutdown", ANY);
    if (code == SUCCESS)
        initialised--;
    return code;
}

const char *nvmlErrorString(int code)
{
    static char text[64];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    int code = enter("SystemGetDriverVersion", ANY);
    return code ? code : say(version, length, driver);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = enter("DeviceGetCount", ANY);
    *count = card_count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct card **handle)
{
    int code = enter("DeviceGetHandleByIndex", (int)index);
    if (code)
        return code;
    if (index >= (unsigned)card_count)
        return INVALID_ARGUMENT;
    *handle = &cards[index];
    return SUCCESS;
}

int nvmlDeviceGetName(struct card *card, char *name, unsigned length)
{
    int code = enter("DeviceGetName", number(card));
    return code ? code : say(name, length, card->name);
}

int nvmlDeviceGetUUID(struct card *card, char *uuid, unsigned length)
{
    int code = enter("DeviceGetUUID", number(card));
    return code ? code : say(uuid, length, card->uuid);
}

int nvmlDeviceGetPciInfo_v3(struct card *card, struct pci_info *info)
{
    int code = enter("DeviceGetPciInfo", number(card));
    if (code)
        return code;
    memset(info, 0, sizeof *info);
    sscanf(card->pci, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    return say(info->id, sizeof info->id, card->pci);
}

int nvmlDeviceGetMemoryInfo(struct card *card, struct memory *memory)
{
    int code = enter("DeviceGetMemoryInfo", number(card));
    if (code)
        return code;
    memory->total = memory->free = card->bytes;
    memory->used = 0;
    return SUCCESS;
}
